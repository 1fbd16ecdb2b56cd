//! A pager of a thread that is told of faults, as they are written by hand: as little as it can be.
//!
//! It reads the page into a buffer and copies it to where it is missed (`UFFDIO_COPY`), protected if the access was a read, so that it hears of the first write. To leave, a dirty page
//! is protected and written to the file, then dropped (`MADV_DONTNEED`).

use super::common::{Map, PAGE, pipe};
use super::ring::{Held, Ring};
use super::work::{Contender, Scene};
use spile_linux::{Cause, Door, Features, Uffd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::{Scope, ScopedJoinHandle};

/// `UFFD_EVENT_PAGEFAULT`, and flags of its messages.
const PAGEFAULT: u8 = 0x12;
const WRITE: u64 = 1;
const WP: u64 = 2;

/// `struct uffd_msg` of a fault.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    at: u64,
    thread: u64,
}

/// What the thread has.
struct Server<'a> {
    uffd: Uffd,
    /// Address of the region.
    region: u64,
    buffer: Map,
    ring: Ring,
    scene: Scene<'a>,
}

pub struct Handler<'s> {
    region: Map,
    stop: OwnedFd,
    thread: ScopedJoinHandle<'s, ()>,
}

impl<'s> Handler<'s> {
    pub fn new<'e>(scene: Scene<'e>, scope: &'s Scope<'s, 'e>) -> Self {
        let uffd = Door::OwnFaults.open(Features::PAGEFAULT_FLAG_WP).expect("the probe says so");
        let (region, buffer) = (Map::anonymous(scene.file.pages), Map::anonymous(scene.window));
        // SAFETY: (1) who uses it waits for the thread.
        unsafe { uffd.register(region.at(0), region.len()) }.expect("ours, and new");
        let (stopped, stop) = pipe();
        let server = Server { uffd, region: region.at(0), buffer, ring: Ring::new(scene.resident), scene };
        Self { region, stop, thread: scope.spawn(move || server.serve(&stopped)) }
    }
}

impl Server<'_> {
    fn serve(mut self, stopped: &OwnedFd) {
        let poll = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        loop {
            let mut polls = [poll(self.uffd.as_fd().as_raw_fd()), poll(stopped.as_raw_fd())];
            // SAFETY: (1) two structs.
            assert!(unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) } > 0);
            if polls[1].revents != 0 {
                let Self { ring, uffd, region, scene, .. } = &mut self;
                return ring.drain(|_, run| evict(uffd, *region, scene, run));
            }
            let mut messages = [Message::default(); 16];
            // SAFETY: (1) room for 16.
            let read = unsafe { libc::read(polls[0].fd, messages.as_mut_ptr().cast(), size_of_val(&messages)) };
            // None, if the fault was resolved meanwhile.
            let count = read.max(0) as usize / size_of::<Message>();
            messages[..count].iter().for_each(|message| self.resolve(message));
        }
    }

    fn resolve(&mut self, message: &Message) {
        assert_eq!(message.event, PAGEFAULT);
        let Self { uffd, region, buffer, ring, scene } = self;
        let window = scene.window;
        let page = (message.at - *region) / PAGE;
        if message.flags & WP != 0 {
            ring.dirty(page);
            // SAFETY: (1) who writes expects to.
            return unsafe { uffd.protect(*region + page * PAGE, PAGE, false) }.expect("it is there");
        }
        let (first, is_write) = (page - page % window, message.flags & WRITE != 0);
        ring.take(first, window, is_write, |_, run| evict(uffd, *region, scene, run));
        let at = *region + first * PAGE;
        // SAFETY: (1) the buffer is this thread's; (2) whoever misses the page waits for it.
        let copied = unsafe {
            scene.file.read(first, buffer.at(0), window);
            uffd.copy(at, buffer.at(0), window * PAGE, !is_write)
        };
        match copied.map_err(|stopped| stopped.cause()) {
            Ok(()) => {}
            Err(Cause::PageThere) => uffd.wake(at, window * PAGE).expect("it is registered"),
            Err(cause) => panic!("{cause:?}"),
        }
    }
}

fn evict(uffd: &Uffd, region: u64, scene: &Scene, run: &[Held]) {
    let (at, len) = (region + run[0].page * PAGE, run.len() as u64 * PAGE);
    // SAFETY: (1) who writes meanwhile faults, and waits; (2) who misses the pages faults, and reads what is written here.
    unsafe {
        if run[0].is_dirty {
            uffd.protect(at, len, true).expect("it is there");
            scene.file.write(run[0].page, at, run.len() as u64);
        }
        assert_eq!(libc::madvise(at as *mut libc::c_void, len as usize, libc::MADV_DONTNEED), 0);
    }
}

impl Contender for Handler<'_> {
    fn at(&self) -> u64 {
        self.region.at(0)
    }

    fn finish(self: Box<Self>) {
        drop(self.stop);
        self.thread.join().expect("it ends when the pipe is closed");
    }
}
