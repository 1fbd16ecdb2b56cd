//! Races that Linux had, or found in review: each as it is here, and with the mistake that makes it.
//!
//! **Guarantee.** A race of the [`CATALOGUE`] passes under every design as it is shipped, and each of its mistakes is found by some seed in each of the
//! designs that it names. The same seed tells the same story.
//!
//! **Mechanism.** A race is a program of a few CPUs under the seeded scheduler (`scenes`, on a `stage`), and its story is what of the schedule's trace
//! matters (`telling`). A seeded bug is chosen when a process starts, so a variant is played by another process (`variant`). Without feature `sched`
//! the catalogue can be read and not played.

pub mod story;
pub mod variant;

#[cfg(feature = "sched")]
mod scenes;
#[cfg(feature = "sched")]
mod stage;
#[cfg(feature = "sched")]
mod telling;

use anyhow::{Result, bail};
use serde::Serialize;

/// A race, and what it takes for it to happen.
#[derive(Debug, Serialize)]
pub struct Race {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// When it was found.
    pub since: u32,
    /// Where.
    pub source: &'static str,
    /// What goes wrong.
    pub wrong: &'static str,
    /// What makes it happen here. The first, in its first design, is the one to show.
    pub mistakes: &'static [Mistake],
    /// Plays a seed, by the designs in the order of their list.
    #[cfg(feature = "sched")]
    #[serde(skip)]
    plays: &'static [fn(u64) -> spile_sync::sched::Outcome],
}

/// A seeded bug that makes a race.
#[derive(Debug, Serialize)]
pub struct Mistake {
    /// `SPILE_MUTATE` is `bug:` and this.
    pub bug: &'static str,
    /// What is broken, and why that does it.
    pub broken: &'static str,
    /// Where it is this race. Elsewhere it is none: the line is not passed, or something else keeps the two apart.
    pub designs: &'static [&'static str],
}

macro_rules! names {
    ([$($module:ident $design:ident,)*]) => { &[$(<spile::$design as spile::Locking>::NAME),*] };
}

/// Every design.
const ALL: &[&str] = spile::for_each_design!(names!());

#[cfg(feature = "sched")]
macro_rules! plays {
    ([$($module:ident $design:ident,)*] $scene:ident) => { &[$(scenes::$scene::play::<spile::$design>,)*] };
}

macro_rules! race {
    ($scene:ident, $($field:ident: $value:expr,)*) => {
        Race {
            $($field: $value,)*
            #[cfg(feature = "sched")]
            plays: spile::for_each_design!(plays!($scene)),
        }
    };
}

/// All, in the order of their years.
pub const CATALOGUE: &[Race] = &[
    race! { nested_flush,
        name: "nested-flush",
        title: "two discards of a page",
        since: 2017,
        source: "Linux 4.13, \"mm: fix MADV_[FREE|DONTNEED] TLB flush miss problem\"; found by Nadav Amit and Mel Gorman",
        wrong: "A DONTNEED finds a page's entry already emptied, flushes nothing and returns, while the CPU that emptied it has not flushed yet: who \
                called it goes on with the old page through its TLB.",
        mistakes: &[Mistake {
            bug: "p6-ignore-pending",
            broken: "What empties a range flushes what it has emptied itself, and does not ask whether others have emptied entries and not flushed them.",
            designs: ALL,
        }],
    },
    race! { freed_page,
        name: "freed-page",
        title: "a page freed before the flush",
        since: 2018,
        source: "the rule that mremap broke in CVE-2018-18281, \"mremap: properly flush TLB before releasing the page\", Linux 4.19; found by Jann Horn",
        wrong: "A page is given back, and soon somebody else's, while a CPU still writes to it through its TLB.",
        mistakes: &[Mistake {
            bug: "p8-free-before-flush",
            broken: "An unmap gives each page back as it empties its entry, not after the flush.",
            designs: ALL,
        }],
    },
    race! { lost_wake,
        name: "lost-wake",
        title: "a wake-up that is not sent",
        since: 2019,
        source: "the kind of \"locking/rwsem: Fix (possible) missed wakeup\", Linux 5.0, by Xie Yongji",
        wrong: "Who gives the lock back does not wake the one who went to sleep for it, who sleeps for ever.",
        mistakes: &[
            Mistake {
                bug: "unlock-without-a-word",
                broken: "Who gives the address space's lock back sees that somebody waits for it, and does not say so.",
                designs: ALL,
            },
            Mistake {
                bug: "leave-without-a-word",
                broken: "Who gives a locked range back sees that somebody waits for one, and does not say so.",
                designs: &["range_lock"],
            },
        ],
    },
    race! { freed_table,
        name: "freed-table",
        title: "a table freed under a fault",
        since: 2022,
        source: "Linux 6.1, \"mm/khugepaged: fix GUP-fast interaction by sending IPI\"; found by Jann Horn",
        wrong: "A page table that became empty is taken out and freed while somebody who walks without the lock is on the way into it.",
        mistakes: &[
            Mistake {
                bug: "p3-no-mark",
                broken: "A table that was taken out does not say so, so that a fault that has found it before installs a page there, which nobody \
                         finds again.",
                designs: &["rcu", "mmap_lock_rbtree", "mmap_lock", "range_lock", "spf_srcu", "spf_refcount", "vma_refcount_2019", "spf_seq", "vma_rwsem", "vma_refcount", "rcu_prealloc", "rcu_late_zap"],
            },
            Mistake {
                bug: "p8-table-without-grace",
                broken: "A table is given back without a grace period, under the walks that are in it.",
                designs: &["rcu", "range_lock", "spf_srcu", "spf_refcount", "vma_refcount_2019", "spf_seq", "vma_rwsem", "vma_refcount", "rcu_prealloc", "rcu_late_zap", "pt_range"],
            },
        ],
    },
    race! { stack_rot,
        name: "stack-rot",
        title: "stack growth",
        since: 2023,
        source: "StackRot, CVE-2023-3269, Linux 6.1 to 6.4; found by Ruihan Li",
        wrong: "A stack that grows changes the tree of mappings under a lock that is only shared, while others change it or look.",
        mistakes: &[Mistake {
            bug: "grow-with-a-share",
            broken: "Growth takes the address space's lock as a reader does, so two may change the tree at once.",
            designs: &["vma_refcount", "btreemap_rwlock", "mmap_lock", "spf_refcount", "spf_seq", "vma_rwsem", "rcu"],
        }],
    },
    race! { fork_cow,
        name: "fork-cow",
        title: "fork against the first write",
        since: 2023,
        source: "Linux 6.4, the first with per-VMA locks: \"fork: lock VMAs of the parent process when forking\", by Suren Baghdasaryan",
        wrong: "The parent writes to pages that fork is just sharing, so the child gets a memory that never was: a later write without an earlier.",
        mistakes: &[Mistake {
            bug: "fork-without-claim",
            broken: "Fork shares pages without claiming their mappings, so faults that hold no lock of the address space go on beside it.",
            designs: &["vma_refcount", "spf_refcount", "vma_rwsem", "rcu", "rcu_late_zap"],
        }],
    },
    race! { late_reader,
        name: "late-reader",
        title: "a late reader",
        since: 2023,
        source: "detached mappings: the flag of Linux 6.4's per-VMA locks, which 6.15 made a part of the reference count",
        wrong: "A fault finds a mapping, a munmap takes it away and returns, and the fault installs a page where nothing is mapped.",
        mistakes: &[
            Mistake {
                bug: "claim-without-quiesce",
                broken: "A change does not wait for faults that had a reference on the mapping before it was claimed.",
                designs: &["vma_refcount"],
            },
            Mistake {
                bug: "no-revalidation",
                broken: "A fault does not ask, before it installs, whether the sequence it has noted is still the same.",
                designs: &["spf_refcount", "spf_seq", "rcu"],
            },
            Mistake {
                bug: "hold-a-dead-vma",
                broken: "A fault that gets a mapping's lock does not ask whether the mapping was taken out of the index meanwhile.",
                designs: &["vma_rwsem"],
            },
            Mistake {
                bug: "zap-without-grace",
                broken: "Pages are taken away before the faults that found the mapping have ended, which may then install another.",
                designs: &["rcu_late_zap"],
            },
            Mistake {
                bug: "read-beside-writer",
                broken: "A fault gets the address space's lock while somebody changes.",
                designs: &["btreemap_rwlock", "mmap_lock"],
            },
        ],
    },
    race! { recycled,
        name: "recycled",
        title: "a recycled mapping",
        since: 2024,
        source: "found in review of \"mm: make vma cache SLAB_TYPESAFE_BY_RCU\", which came in Linux 6.15",
        wrong: "A fault finds a mapping, which is freed and soon another address space's; the fault takes hold of it and does as that one permits.",
        mistakes: &[
            Mistake {
                bug: "recycled-of-another",
                broken: "A fault that has got its reference does not ask whose the mapping is by now.",
                designs: &["vma_refcount"],
            },
            Mistake {
                bug: "recycle-at-once",
                broken: "A mapping's memory is used anew without a grace period, while somebody who has found it is under way.",
                designs: &["rcu", "spf_refcount", "spf_seq", "vma_rwsem"],
            },
        ],
    },
    race! { hole_in_maps,
        name: "hole-in-maps",
        title: "a hole in the list",
        since: 2025,
        source: "/proc/PID/maps without the address space's lock, Linux 6.17",
        wrong: "Who lists the mappings while one is cut or replaced misses memory that is mapped all the time.",
        mistakes: &[Mistake {
            bug: "two-steps",
            broken: "The tree takes the old mappings out in one store and puts the new ones in with another.",
            designs: &["rcu", "mmap_lock", "spf_refcount", "spf_seq", "vma_rwsem", "vma_refcount", "rcu_late_zap"],
        }],
    },
];

impl Race {
    /// Plays one seed under a design, as this process was started: shipped, or with a bug.
    ///
    /// # Panics
    ///
    /// If there is no such design.
    #[cfg(feature = "sched")]
    pub fn play(&self, design: &str, seed: u64) -> spile_sync::sched::Outcome {
        let n = crate::design::DESIGNS.iter().position(|known| known.name == design);
        self.plays[n.unwrap_or_else(|| panic!("no design is called {design}"))](seed)
    }

    /// Each mistake with each design that it is a race in.
    pub fn shown(&self) -> impl Iterator<Item = (&'static Mistake, &'static str)> {
        let of = |mistake: &'static Mistake| mistake.designs.iter().map(move |design| (mistake, *design));
        self.mistakes.iter().flat_map(of)
    }
}

/// The race that is called so.
///
/// # Errors
///
/// There is none; the error says which there are.
pub fn named(name: &str) -> Result<&'static Race> {
    match CATALOGUE.iter().find(|race| race.name == name) {
        Some(race) => Ok(race),
        None => {
            let all: Vec<_> = CATALOGUE.iter().map(|race| race.name).collect();
            bail!("no race is called `{name}`; there are {}", all.join(", "))
        }
    }
}
