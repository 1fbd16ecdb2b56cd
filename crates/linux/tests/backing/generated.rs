//! Pages that a function makes.

use super::{PAGE, read, write};
use spile_linux::backing::{Backing, Generated, Page};
use std::io::{self, ErrorKind};

/// Each page has its number in its first bytes, and page 5 cannot be made.
fn numbers(first: u64, page: &mut Page) -> io::Result<()> {
    if first == 5 * PAGE {
        return Err(io::Error::new(ErrorKind::TimedOut, "page 5 takes too long"));
    }
    page[..8].copy_from_slice(&(first / PAGE).to_le_bytes());
    Ok(())
}

#[test]
fn each_page_is_made_of_zeros() {
    // SAFETY: (1) the place alone says what is there.
    let numbers = unsafe { Generated::new(numbers) };
    let pages = read(&numbers, 1 << 40..(1 << 40) + 9).expect("they can be made");
    for (number, page) in (1u64 << 40..).zip(pages.chunks(PAGE as usize)) {
        assert_eq!(page[..8], number.to_le_bytes());
        assert_eq!(page[8..], [0; PAGE as usize - 8], "what the function leaves alone is not junk");
    }
}

#[test]
fn the_functions_error_is_given() {
    // SAFETY: (1) the place alone says what is there.
    let numbers = unsafe { Generated::new(numbers) };
    let error = read(&numbers, 3..7).expect_err("one cannot be made");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::TimedOut, "page 5 takes too long".to_string()));
    read(&numbers, 6..7).expect("this one can");
}

#[test]
fn nothing_is_written() {
    // SAFETY: (1) the place alone says what is there.
    let numbers = unsafe { Generated::new(numbers) };
    assert!(!numbers.takes_writes());
    assert_eq!(write(&numbers, 0, &[1; PAGE as usize]).expect_err("it takes none").kind(), ErrorKind::Unsupported);
    numbers.sync().expect("there is nothing to do");
}
