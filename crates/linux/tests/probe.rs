//! What the probe says is so: as whoever runs this, as a user without rights, and under filters of system calls; and it leaves nothing behind.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{End, in_child};
use spile_linux::{Ability, Door, Engine, Reason, Refused, Report, probe};
use std::fs;
use std::io::Error;
use std::os::fd::AsRawFd;

/// What opens, by system calls made here.
fn opens(door: Door) -> bool {
    // SAFETY: (1) calls without pointers, but for a string of C.
    let fd = unsafe {
        match door {
            Door::OwnFaults => libc::syscall(libc::SYS_userfaultfd, 1 | libc::O_CLOEXEC) as i32,
            Door::AllFaults => libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as i32,
            Door::Device => match libc::open(c"/dev/userfaultfd".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) {
                device if device < 0 => device,
                device => libc::ioctl(common::owned(device).as_raw_fd(), 0xaa00, libc::O_CLOEXEC),
            },
        }
    };
    let is_open = fd >= 0;
    if is_open {
        drop(common::owned(fd));
    }
    is_open
}

/// What a report says of doors, and what is so. For people it is printed.
fn compared(report: &Report) -> String {
    let said = Door::ALL.map(|door| report.doors.iter().any(|(of, opened)| *of == door && opened.is_ok()));
    let is = Door::ALL.map(opens);
    assert_eq!(said, is, "{report}");
    assert_eq!(report.door().is_some(), said.contains(&true));
    assert!(report.door().is_some() || matches!(report.engine, Err(Refused::Closed(_))), "{report}");
    report.to_string()
}

#[test]
fn what_is_said_of_this_process_is_so() {
    let report = probe();
    println!("{}", compared(&report));
    match report.engine {
        Err(Refused::Lacks(ability)) => assert!(!report.features.has(ability.needs()), "{report}"),
        Err(refused) => println!("skipped: {refused}"),
        Ok(engine) => {
            assert_eq!(report.tried.len(), Ability::ALL.len());
            assert!(engine.needs().iter().all(|need| report.why_not(*need).is_none()));
            // What the kernel offers works, but for what takes a file of /proc.
            let offered = |ability: &Ability| report.features.has(ability.needs());
            let must = Ability::ALL.into_iter().filter(|ability| !matches!(ability, Ability::Track | Ability::HugeShared));
            for ability in must.filter(offered) {
                assert!(report.why_not(ability).is_none(), "{report}");
            }
            let best = if offered(&Ability::Move) { Engine::Move } else { Engine::Copy };
            assert_eq!(engine, best);
            assert_eq!(report.passed_over().count(), usize::from(best == Engine::Copy));
        }
    }
}

/// In a child: from now on this is a user without rights. Says whether that could be done.
fn become_nobody() -> bool {
    const NOBODY: u32 = 65534;
    // SAFETY: (1) calls without pointers, but for no groups.
    unsafe { libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(NOBODY) == 0 && libc::setuid(NOBODY) == 0 }
}

fn is_root() -> bool {
    // SAFETY: (1) a question.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn a_user_without_rights_is_told_which_are_missing() {
    if !is_root() {
        println!("skipped: only root can become another user (what this user gets, the other tests compare)");
        return;
    }
    let (said, end) = in_child(|| {
        assert!(become_nobody());
        let report = probe();
        for (door, opened) in &report.doors {
            match (door, opened) {
                (Door::AllFaults, Err(shut)) => {
                    assert!(matches!(shut.reason, Reason::Unprivileged | Reason::Filtered), "{shut}")
                }
                (Door::Device, Err(shut)) => assert!(matches!(shut.reason, Reason::DeviceRights | Reason::NoDevice)),
                _ => {}
            }
        }
        assert!(!report.rights.ptrace);
        // A process that has changed its user may not look at itself, until it says that it may.
        let track = report.why_not(Ability::Track).map(ToString::to_string).unwrap_or_default();
        // SAFETY: (1) no pointers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        let again = probe();
        if report.door().is_some() && again.why_not(Ability::Track).is_none() {
            assert!(track.contains("PR_SET_DUMPABLE"), "{track}");
        }
        compared(&again)
    });
    println!("{said}");
    assert_eq!(end, End::Exit(0), "{said}");
    let is_about_rights = said.contains("all faults      no") && !said.contains("(seccomp) refuses");
    for right in ["CAP_SYS_PTRACE", "vm.unprivileged_userfaultfd=1"] {
        assert!(!is_about_rights || said.contains(right), "{right} is not named: {said}");
    }
}

/// In a child: from now on a filter answers this call with this error, or 0, if its second argument is that, if any.
fn answer_instead(call: i64, second: Option<u32>, errno: i32) {
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, at);
    let unless = |is, skipped| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, is);
    let answer = |answer| step(libc::BPF_RET | libc::BPF_K, 0, answer);
    // What a filter is shown begins with the number of the call; the lower half of its second argument is at 24.
    let mut filter = vec![load(0), unless(call as u32, if second.is_some() { 3 } else { 1 })];
    filter.extend(second.into_iter().flat_map(|second| [load(24), unless(second, 1)]));
    filter.extend([answer(libc::SECCOMP_RET_ERRNO | errno as u32), answer(libc::SECCOMP_RET_ALLOW)]);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: (1) a program of so many steps, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0, "{}", Error::last_os_error());
    }
}

/// Probes under a filter; what is said of both system calls is that it was the filter.
fn under_a_filter(errno: i32, is_nobody: bool) -> (String, End) {
    in_child(|| {
        assert!(!is_nobody || become_nobody());
        answer_instead(libc::SYS_userfaultfd, None, errno);
        let report = probe();
        assert!(report.rights.seccomp);
        let [own, all, device] = &report.doors[..] else { panic!("three doors") };
        for (_, opened) in [own, all] {
            let shut = opened.as_ref().expect_err("the filter refuses it");
            assert_eq!((shut.reason, shut.error.raw_os_error()), (Reason::Filtered, Some(errno)), "{shut}");
            assert!(shut.to_string().contains("seccomp"), "{shut}");
        }
        match &device.1 {
            Ok(()) => assert_eq!(report.door(), Some(Door::Device)),
            Err(_) => assert_eq!(report.engine, Err(Refused::Closed(Reason::Filtered))),
        }
        compared(&report)
    })
}

#[test]
fn a_filter_of_system_calls_is_told_from_the_kernel() {
    if probe().rights.seccomp && !opens(Door::OwnFaults) {
        println!("skipped: there is a filter already, which refuses it");
        return;
    }
    for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
        let (said, end) = under_a_filter(errno, false);
        println!("{said}");
        assert_eq!(end, End::Exit(0), "{said}");
    }
    if !is_root() {
        println!("skipped: only root can become another user, who has no device either");
        return;
    }
    let (said, end) = under_a_filter(libc::EPERM, true);
    println!("{said}");
    assert_eq!(end, End::Exit(0), "{said}");
    let is_open_to_all = opens(Door::Device) && said.contains("/dev/userfaultfd                yes");
    assert!(is_open_to_all || said.contains("engine    none: no userfaultfd"), "{said}");
}

/// Ioctls, and what cannot be had without them.
const NEEDED: [(&str, u32, Ability); 6] = [
    ("UFFDIO_COPY", 0xc028_aa03, Ability::Copy),
    ("UFFDIO_MOVE", 0xc028_aa05, Ability::Move),
    ("UFFDIO_WRITEPROTECT", 0xc018_aa06, Ability::Protect),
    ("UFFDIO_CONTINUE", 0xc020_aa07, Ability::Continue),
    ("UFFDIO_POISON", 0xc020_aa08, Ability::Poison),
    ("PAGEMAP_SCAN", 0xc060_6610, Ability::Track),
];

/// Whether it is had, and with which engine, where an ioctl fails with an error, or says with 0 that it did what it did not.
fn without(request: u32, ability: Ability, errno: i32) -> (String, End) {
    in_child(|| {
        answer_instead(libc::SYS_ioctl, Some(request), errno);
        let report = probe();
        let others = [Ability::Copy, Ability::Move, Ability::Continue, Ability::Poison].into_iter();
        let lost: Vec<_> = others.filter(|other| *other != ability && report.why_not(*other).is_some()).collect();
        let why = report.why_not(ability).map_or("it is had".into(), ToString::to_string);
        format!("{:?}, {} lost besides: {why}", report.engine, lost.len())
    })
}

#[test]
fn what_does_not_work_or_only_says_that_it_does_is_found() {
    let report = probe();
    if report.engine != Ok(Engine::Move) {
        println!("skipped: this is about an engine that is not had here: {:?}", report.engine);
        return;
    }
    for (name, request, ability) in NEEDED.into_iter().filter(|(.., ability)| report.why_not(*ability).is_none()) {
        let engine = match ability {
            Ability::Move => "Ok(Copy)",
            Ability::Protect => "Err(Lacks(Protect))",
            // The handler of the trial uses it.
            Ability::Copy => "Err(Lacks(Signal))",
            _ => "Ok(Move)",
        };
        for errno in [libc::EINVAL, 0] {
            let (said, end) = without(request, ability, errno);
            println!("{name} answered by {errno}: {said}");
            assert_eq!(end, End::Exit(0), "{name}, {errno}: {said}");
            assert!(said.starts_with(&format!("{engine}, 0 lost")) && !said.contains("it is had"), "{name}, {errno}: {said}");
        }
    }
}

extern "C" fn not_to_be_called(_: i32) {
    // SAFETY: (1) ends the process.
    unsafe { libc::_exit(7) };
}

/// Open files and lines of the list of mappings.
fn counts() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    (fs::read_dir("/proc/self/fd").unwrap().count(), maps.lines().count())
}

#[test]
fn the_probe_leaves_nothing_behind_and_calls_nobody() {
    let child = || {
        // What it allocates once is there afterwards.
        drop(probe());
        // SAFETY: (1) handlers and masks of this process, which has no other threads; (2) the structs are written before they are read.
        unsafe {
            libc::signal(libc::SIGBUS, not_to_be_called as *const () as usize);
            libc::signal(libc::SIGCHLD, not_to_be_called as *const () as usize);
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut mask, libc::SIGBUS);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        }
        let before = counts();
        let report = probe();
        assert_eq!(counts(), before);
        // Blocked here, it is not where it is tried.
        assert!(report.tried.iter().all(|(ability, came)| *ability != Ability::Signal || came.is_ok()), "{report}");
        // SAFETY: (1) as above.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut mask);
            assert_eq!(
                (1..=64).filter(|signal| libc::sigismember(&raw const mask, *signal) == 1).collect::<Vec<_>>(),
                [libc::SIGBUS]
            );
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut action);
            assert_eq!(action.sa_sigaction, not_to_be_called as *const () as usize);
            // No child, of whatever kind.
            assert_eq!(libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL), -1);
        }
        String::new()
    };
    assert_eq!(in_child(child), (String::new(), End::Exit(0)));
}

#[test]
fn threads_probe_beside_each_other() {
    let tell = |report: Report| {
        format!("{:?} {:?}", report.engine, report.tried.iter().map(|(_, came)| came.is_ok()).collect::<Vec<_>>())
    };
    let alone = tell(probe());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).map(|_| tell(probe())).collect::<Vec<_>>())).collect();
        for said in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert_eq!(said, alone);
        }
    });
}
