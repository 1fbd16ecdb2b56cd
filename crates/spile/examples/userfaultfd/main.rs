//! A process that pages its own memory: real faults on real pages, resolved by the core on the thread that faults.
//!
//! **Guarantee.** What a thread wrote it reads again, while other threads fault on the same pages, take snapshots of them and change
//! their protection. Where userfaultfd or its MOVE cannot be had, it says why and ends.
//!
//! **Mechanism.** One region, registered with a userfaultfd that raises SIGBUS; a handler that asks the core; a host, in `host.rs`,
//! that makes the kernel's tables into what the core's are.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod host;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod story;

fn main() {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    let skipped = story::run().err();
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let skipped = Some("Linux on x86-64 or aarch64 has it");
    if let Some(why) = skipped {
        println!("userfaultfd: skipped: {why}");
    }
}
