//! The same by the kernel's mmap.
//!
//! **Guarantee.** The kernel has no more memory for it than the pager has, or it is not done.
//!
//! **Mechanism.** A group of processes whose memory is limited, for as long as it takes. What the kernel's tables and this program's code take counts there too.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Sorts the numbers in a file by way of the kernel's mmap.
pub fn sort(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len() as usize;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: (1) a new mapping overlaps nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: (1) mapped until the next statement, and aligned; (2) the file is this program's alone.
    unsafe { std::slice::from_raw_parts_mut(at.cast::<u64>(), len / 8) }.sort_unstable();
    // SAFETY: (1) nobody has it any more.
    unsafe { libc::munmap(at, len) };
    file.sync_data()
}

/// Does it in a group of processes that may have so much memory.
pub fn within<T>(bytes: u64, what: impl FnOnce() -> T) -> io::Result<T> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = |controller| own.lines().find_map(|line: &str| Some(line.split_once(controller)?.1));
    let name = format!("spile-sort-{}", std::process::id());
    let (home, group, limit) = match own(":memory:/") {
        Some(path) => (format!("memory/{path}"), format!("memory/{path}/{name}"), "memory.limit_in_bytes"),
        None => (own("0::/").unwrap_or_default().into(), name, "memory.max"),
    };
    let [home, group] = [home, group].map(|path| Path::new("/sys/fs/cgroup").join(path));
    fs::create_dir(&group)?;
    let limited = fs::write(group.join(limit), bytes.to_string());
    let done = limited.and_then(|()| fs::write(group.join("cgroup.procs"), "0")).map(|()| what());
    fs::write(home.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(&group))?;
    done
}
