//! Saying something where nothing may be allocated.
//!
//! **Guarantee.** A signal handler may.
//!
//! **Mechanism.** A line on the stack, and `write(2)`.

use std::fmt::{self, Write};

struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let some = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.len..self.len + some.len()].copy_from_slice(some);
        self.len += some.len();
        Ok(())
    }
}

/// Writes a line to the standard error output.
pub fn say(what: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    // It writes as much as there is room for, and never fails.
    _ = writeln!(line, "spile: {what}");
    // SAFETY: (1) bytes on this stack.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
}

/// Says it, and ends the process.
pub fn abort(what: fmt::Arguments<'_>) -> ! {
    say(what);
    std::process::abort()
}
