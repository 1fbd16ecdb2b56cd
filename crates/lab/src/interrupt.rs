//! Ctrl-C: what is done is kept.
//!
//! **Mechanism.** The first time it only says so, and loops that take long ask. The second time the program ends, as it would without this.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends loops and not the program. Where it cannot be caught it ends the program.
pub fn keep_what_is_done() {
    let _ = ctrlc::set_handler(|| {
        // Relaxed: a flag, and nothing with it.
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("finishing; once more ends at once");
    });
}

/// Whether somebody wants it to end.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
