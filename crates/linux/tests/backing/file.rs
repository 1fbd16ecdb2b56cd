//! Pages in a file, on a disk and in memory, through the page cache and past it.

use super::{Model, PAGE, behaves, behaves_for_two, bytes, read, write};
use crate::common::{End, in_child};
use spile_linux::backing::{Backing, Mode, OnFile};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with a file of so many bytes, which are not zeros.
struct Bed {
    directory: TempDir,
    contents: Vec<u8>,
}

impl Bed {
    fn new(parent: &Path, len: u64) -> Self {
        let directory = tempfile::tempdir_in(parent).expect("a directory can be made");
        let mut contents = bytes(len << 32, len.div_ceil(PAGE));
        contents.truncate(len as usize);
        let bed = Self { directory, contents };
        fs::write(bed.path(), &bed.contents).expect("a file can be written");
        bed
    }

    /// On the disk on which tests are built.
    fn on_disk(len: u64) -> Self {
        Self::new(Path::new(env!("CARGO_TARGET_TMPDIR")), len)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pages")
    }

    fn open(&self, mode: Mode) -> std::io::Result<OnFile> {
        // SAFETY: (1) the file is this test's, which changes it where it says so.
        unsafe { OnFile::open(self.path(), mode) }
    }

    /// None, and a word why, if the file system does not do that.
    fn try_open(&self, mode: Mode) -> Option<OnFile> {
        match self.open(mode) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                println!("skipped: {error}");
                None
            }
            opened => Some(opened.expect("it is there")),
        }
    }

    fn model(&self) -> Model {
        Model { contents: self.contents.clone(), forgets: false }
    }
}

const LENGTHS: [u64; 9] = [0, 1, 511, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE + 512, 70 * PAGE + 17, 150 * PAGE];

/// What can be done where, in each file that is in both.
fn everywhere(modes: [Mode; 2], act: impl Fn(Bed, OnFile)) {
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"].map(Path::new) {
        if !parent.is_dir() {
            println!("skipped: there is no {}", parent.display());
            continue;
        }
        for mode in modes {
            for len in LENGTHS {
                let bed = Bed::new(parent, len);
                if let Some(file) = bed.try_open(mode) {
                    act(bed, file);
                }
            }
        }
    }
}

const BOTH: [Mode; 2] = [Mode::READ_WRITE, Mode::READ_WRITE.direct(true)];

#[test]
fn it_is_what_was_written_and_no_longer() {
    everywhere(BOTH, |bed, file| {
        let mut model = bed.model();
        assert_eq!((file.len(), file.is_empty()), (model.contents.len() as u64, model.contents.is_empty()));
        behaves(&file, &mut model, file.len());
        assert!(fs::read(bed.path()).expect("it is there") == model.contents, "others find what was written");
    });
}

#[test]
fn two_threads_have_pages_of_their_own() {
    everywhere(BOTH, |bed, file| {
        if !file.is_empty() {
            behaves_for_two(&file, &bed.model(), file.len());
            assert_eq!(fs::metadata(bed.path()).expect("it is there").len(), file.len());
        }
    });
}

#[test]
fn a_file_for_reading_takes_no_writes() {
    everywhere([Mode::READ, Mode::READ.direct(true)], |bed, file| {
        assert!(!file.takes_writes());
        let pages = file.len().div_ceil(PAGE) + 1;
        assert!(read(&file, 0..pages).expect("it is read") == bed.model().bytes(&(0..pages)));
        let refused = write(&file, 0, &[0; PAGE as usize]).expect_err("it may not be written");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(
            refused.to_string().ends_with("it was opened for reading") || refused.to_string().contains("O_DIRECT"),
            "{refused}"
        );
        file.sync().expect("there is nothing to do");
    });
}

/// The flags of each descriptor of this process that is of this file.
fn flags_of(path: &Path) -> Vec<i32> {
    let descriptors = fs::read_dir("/proc/self/fd").expect("it is Linux").filter_map(Result::ok);
    let same = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == path));
    let info = same.map(|entry| fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).expect("it is open"));
    let flags =
        info.map(|info| info.lines().find_map(|line| line.strip_prefix("flags:")).expect("it has flags").trim().to_string());
    flags.map(|flags| i32::from_str_radix(&flags, 8).expect("they are octal")).collect()
}

#[test]
fn whole_pages_go_past_the_page_cache() {
    let bed = Bed::on_disk(3 * PAGE);
    let flags = |mode| {
        let file = bed.try_open(mode)?;
        let count = flags_of(&bed.path()).into_iter().filter(|flags| flags & libc::O_DIRECT != 0).count();
        drop(file);
        Some(count)
    };
    assert_eq!(flags(Mode::READ), Some(0));
    if let Some(count) = flags(Mode::READ.direct(true)) {
        assert_eq!(count, 1);
    }
}

#[test]
fn what_is_beyond_the_end_is_refused_and_nothing_is_written() {
    let bed = Bed::on_disk(2 * PAGE + 100);
    let file = bed.open(Mode::READ_WRITE).expect("it is there");
    let mut pages = vec![1; 4 * PAGE as usize];
    let refused = |first, pages: &[u8]| {
        let refused = write(&file, first, pages).expect_err("it would be lost");
        assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
        assert!(fs::read(bed.path()).expect("it is there") == bed.contents);
        refused.to_string()
    };
    let text = refused(0, &pages);
    assert!(
        text.contains(&bed.path().display().to_string()) && text.contains("page 2 ") && text.ends_with("at byte 8292"),
        "{text}"
    );
    assert!(refused(7, &pages).contains("page 7 "));
    pages[2 * PAGE as usize + 100..].fill(0);
    pages[3 * PAGE as usize] = 1;
    assert!(refused(0, &pages).contains("page 3 "));
    pages[3 * PAGE as usize] = 0;
    write(&file, 0, &pages).expect("all of it is in the file, but for zeros");
    assert_eq!(fs::read(bed.path()).expect("it is there"), [1; 2 * PAGE as usize + 100]);
}

#[test]
fn a_file_that_became_shorter_is_an_error_and_not_zeros() {
    let bed = Bed::on_disk(5 * PAGE);
    let file = bed.open(Mode::READ).expect("it is there");
    File::options().write(true).open(bed.path()).and_then(|file| file.set_len(3 * PAGE + 10)).expect("it is ours");
    let error = read(&file, 0..5).expect_err("what was there is gone");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    let place = format!("cannot read {} at byte {}: ", bed.path().display(), 3 * PAGE + 10);
    assert!(error.to_string().starts_with(&place), "{error}");
    assert!(read(&file, 0..3).expect("these are there") == bed.contents[..3 * PAGE as usize]);
}

/// A limit of the size of files makes the kernel write a part, and then refuse.
#[test]
fn a_write_that_stopped_says_where() {
    let bed = Bed::on_disk(10 * PAGE);
    let file = bed.open(Mode::READ_WRITE).expect("it is there");
    let limit = 5 * PAGE + 512;
    let (said, end) = in_child(|| {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: (1) a struct that is read; (2) the child is alone.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
        }
        let error = write(&file, 2, &[1; 6 * PAGE as usize]).expect_err("it is over the limit");
        format!("{:?} {error}", error.kind())
    });
    assert_eq!(end, End::Exit(0), "{said}");
    let place = format!("FileTooLarge cannot write {} at byte {limit}: ", bed.path().display());
    assert!(said.starts_with(&place), "{said}");
    let now = fs::read(bed.path()).expect("it is there");
    let (begin, end) = (2 * PAGE as usize, limit as usize);
    assert!(now[begin..end].iter().all(|byte| *byte == 1), "what was written is there");
    assert!(now[..begin] == bed.contents[..begin] && now[end..] == bed.contents[end..], "and nothing else is");
}

/// What is said of a path that cannot be opened.
fn refused(path: &Path, mode: Mode) -> (ErrorKind, String) {
    // SAFETY: (1) it cannot be opened.
    let error = unsafe { OnFile::open(path, mode) }.expect_err("it cannot be opened");
    let (kind, text) = (error.kind(), error.to_string());
    assert!(text.starts_with(&format!("cannot open {} for {mode}: ", path.display())), "{text}");
    (kind, text)
}

#[test]
fn who_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let missing = directory.path().join("missing");
    let (kind, text) = refused(&missing, Mode::READ);
    assert!(kind == ErrorKind::NotFound && text.contains(" for reading: "), "{text}");
    let (kind, text) = refused(&missing, Mode::READ_WRITE.direct(true));
    assert!(kind == ErrorKind::NotFound && text.contains(" for reading and writing past the page cache (O_DIRECT): "), "{text}");
    assert!(!missing.exists(), "none is made");
    assert_eq!(refused(directory.path(), Mode::READ).0, ErrorKind::IsADirectory);
    assert_eq!(refused(directory.path(), Mode::READ_WRITE).0, ErrorKind::IsADirectory);
    let (kind, text) = refused(Path::new("/dev/zero"), Mode::READ);
    assert!(kind == ErrorKind::InvalidInput && text.ends_with("it is not a regular file"), "{text}");
}

#[test]
fn a_file_that_may_not_be_written_is_not_opened_for_writing() {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory can be made");
    let path = directory.path().join("kept");
    fs::write(&path, "kept").expect("a file can be written");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let without_rights = std::thread::spawn(move || {
        // Root may write any file, unless it looks at files as somebody else; that is this thread's alone.
        // SAFETY: (1) a call without pointers.
        unsafe { libc::setfsuid(65534) };
        // SAFETY: (1) nobody else has it.
        let read = unsafe { OnFile::open(&path, Mode::READ) }.map(|file| file.len());
        (refused(&path, Mode::READ_WRITE), read)
    });
    let ((kind, text), read) = without_rights.join().expect("it does not panic");
    assert!(kind == ErrorKind::PermissionDenied && text.contains("kept for reading and writing: Permission denied"), "{text}");
    assert_eq!(read.expect("it may be read"), 4);
}

/// The system's own error is behind the one that says what it stopped.
#[test]
fn the_systems_error_is_kept() {
    // SAFETY: (1) it cannot be opened.
    let error = unsafe { OnFile::open("/missing/file", Mode::READ) }.expect_err("it cannot be opened");
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
    assert_eq!(source.and_then(std::io::Error::raw_os_error), Some(libc::ENOENT));
}
