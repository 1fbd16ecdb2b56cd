//! Places that a munmap has taken away and that other CPUs may still use.
//!
//! **Guarantee.** Where an address space says [`Unmapping::Reserve`], such a place is nobody's: faults there are refused at once, nothing is
//! mapped there, and changes elsewhere go on. Where it says [`Unmapping::Admit`], a new mapping may come in; but no fault is resolved in it, nor does
//! the verb that made it return, before no CPU uses what was there.
//!
//! **Mechanism.** A few ranges under a flag that is spun for, and their number, which is all that is asked where there are none. A place is reserved
//! by who has the right to change everything there, before he gives it up; so whoever has that right next finds it. Who meets a place
//! waits for it with nothing held; who flushes it needs nothing but other CPUs. Where the array is full, munmap keeps what its design
//! keeps. (M. Wilcox's zombies, and J. Glisse's answers, December 2019; as ranges beside the index rather than in it, nothing is
//! allocated and the end cannot fail.)

use crate::addr::Range;
use crate::locking::briefly;
use crate::platform::Platform;
use crate::shared::place_of;
use crate::wait::{self, Token};
use spile_sync::atomic::{AtomicUsize, Ordering};
use spile_sync::lock::Guarded;
use spile_sync::seeded;

/// So many at a time.
const PLACES: usize = if cfg!(loom) { 2 } else { 8 };

/// What munmap holds while pages are taken away that nobody finds any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmapping {
    /// What its design keeps: as a rule a share of the address space's lock. No other change begins meanwhile.
    #[default]
    Share,
    /// Its place, and nothing else: others change the space elsewhere. Whoever wants the place waits.
    Reserve,
    /// The same; but a new mapping may come in where nothing is left, and it is the faults in it that wait, and who made it.
    Admit,
}

impl Unmapping {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Share, Self::Reserve, Self::Admit];
}

/// The places of an address space.
#[derive(Debug)]
pub(crate) struct Flushing {
    count: AtomicUsize,
    places: Guarded<[Option<Range>; PLACES]>,
}

/// A place that is reserved, until the drop.
#[derive(Debug)]
pub(crate) struct Reserved<'m, P: Platform> {
    flushing: &'m Flushing,
    p: &'m P,
    place: usize,
}

impl Flushing {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), places: Guarded::new([None; PLACES]) }
    }

    fn thing(&self) -> usize {
        place_of(self)
    }

    /// Reserves `range`, which the caller has the right to change. None if too many are.
    pub(crate) fn reserve<'m, P: Platform>(&'m self, p: &'m P, range: Range) -> Option<Reserved<'m, P>> {
        let place = briefly(p, &self.places, |places| {
            let place = places.iter().position(Option::is_none)?;
            places[place] = Some(range).filter(|_| !seeded!("reserve-nothing"));
            Some(place)
        })?;
        // Relaxed: found by whoever has the right to change the place after us, or finds what such a one has mapped.
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(Reserved { flushing: self, p, place })
    }

    /// Whether there are places at all.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        // Acquire: pairs with the drop of `Reserved`. Whoever finds none sees the entries empty, and does what he does after the flush.
        // (Not named: in every model a table's lock or a frame's way through the host orders the same.)
        self.count.load(Ordering::Acquire) != 0
    }

    /// A place that one of `ranges` meets.
    #[cold]
    pub(crate) fn met<P: Platform>(&self, p: &P, ranges: &[Range]) -> Option<Range> {
        let meets = |place: &Range| ranges.iter().any(|range| range.overlap(*place).is_some());
        briefly(p, &self.places, |places| places.iter().flatten().copied().find(meets))
    }

    /// What to wait for, if one of `ranges` meets a place.
    #[cold]
    pub(crate) fn in_the_way<'m, P: Platform>(&self, p: &'m P, ranges: &[Range]) -> Option<Token<'m, P>> {
        // The moment first, then the look.
        let token = Token::for_thing(p, self.thing());
        self.met(p, ranges).map(|_| token)
    }

    /// Waits until no place meets `range`. With nothing held; may sleep.
    #[cold]
    pub(crate) fn wait<P: Platform>(&self, p: &P, range: Range) {
        while let Some(token) = self.in_the_way(p, &[range]) {
            token.wait();
        }
    }
}

impl<P: Platform> Drop for Reserved<'_, P> {
    fn drop(&mut self) {
        briefly(self.p, &self.flushing.places, |places| places[self.place] = None);
        // Release: what the flush was for comes before what is done at the place next; see `is_any`.
        self.flushing.count.fetch_sub(1, Ordering::Release);
        wait::happened(self.p, self.flushing.thing());
    }
}
