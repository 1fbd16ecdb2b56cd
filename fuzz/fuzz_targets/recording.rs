//! Any bytes as a recording: what can be read of it is kept, and what is wrong is told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spile_mmtrace::salvaged;

const HEAD: &[u8] = b"#mmtrace 1\n";

fuzz_target!(|bytes: &[u8]| {
    let read = salvaged(bytes);
    if let Some(torn) = &read.torn {
        assert!(!torn.why.is_empty());
    }
    // Past the head, which chance would not find.
    let whole = [HEAD, bytes].concat();
    let read = salvaged(&whole);
    let lines = whole.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(read.torn.is_none_or(|torn| torn.line <= lines), "a line that is not there");
    assert!(read.steps.iter().all(|step| step.line <= lines));
});
