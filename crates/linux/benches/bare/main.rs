//! What a pager is measured against: pagers of about a hundred lines that know nothing of address spaces, the kernel's own mapping of the same file, and the price of each thing that
//! a pager asks of the kernel.
//!
//! Contenders take turns, round by round; printed is the median over the rounds. A byte that is not the file's ends the run. Where userfaultfd or its MOVE cannot be had, it says why.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    linux::run()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this is not Linux on x86-64");
}
