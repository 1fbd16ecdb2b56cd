//! Which neighbours become one mapping.
//!
//! **Guarantee.** Two neighbours merge exactly where Linux (6.16 and later) merges them.
//!
//! **Mechanism.** They must be the same in permission, properties and name; their backing must go on without a seam; and their private
//! pages must be of one identity, or one side's of none, and then the other's must not be inherited: its pages may hang in a parent's
//! chains too, which a longer mapping would have to join.
//!
//! ```text
//!   below      middle      above        below and above both fit the middle,
//! |--------|--------------|------|      but must fit each other as well
//! ```

use super::Piece;
use crate::platform::Platform;
use crate::vma::{AnonId, Flags};
use spile_sync::seeded;

/// On which sides a new mapping may merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    /// On both.
    Both,
    /// With what is below alone: an expansion upwards.
    #[cfg(feature = "linux")]
    Below,
    /// On both; what is new extends the mapping below, whose relation to a parent does not matter to the one above.
    #[cfg(feature = "linux")]
    Extend,
    /// On none.
    None,
}

impl Joins {
    #[cfg(feature = "linux")]
    fn extends(self) -> bool {
        self == Joins::Extend
    }

    #[cfg(not(feature = "linux"))]
    fn extends(self) -> bool {
        false
    }
}

/// Whether `middle` merges with what is below and above.
pub(super) fn decide<P: Platform>(
    below: Option<&Piece<'_, P>>,
    middle: &Piece<'_, P>,
    above: Option<&Piece<'_, P>>,
    joins: Joins,
) -> (bool, bool) {
    let with_below =
        joins != Joins::None && below.is_some_and(|below| are_alike(below, middle) && may_share(below.anon, middle.anon));
    let may_join = |above: &Piece<'_, P>| may_share(above.anon, middle.anon) || (joins.extends() && !above.anon.is_some());
    let with_above =
        (joins == Joins::Both || joins.extends()) && above.is_some_and(|above| are_alike(middle, above) && may_join(above));
    let both_fit = || match (below, above) {
        (Some(below), Some(above)) => {
            !below.anon.is_some() || !above.anon.is_some() || is_one(below.anon, above.anon) || seeded!("merge-all-identities")
        }
        _ => true,
    };
    (with_below, with_above && (!with_below || both_fit()))
}

/// What `middle` becomes with the neighbours that merge with it.
pub(super) fn joined<'a, P: Platform>(
    below: Option<Piece<'a, P>>,
    middle: Piece<'a, P>,
    above: Option<Piece<'a, P>>,
) -> Piece<'a, P> {
    let range = [below, above].into_iter().flatten().fold(middle.range, |range, piece| range.around(piece.range));
    let anon = [Some(middle), below, above].into_iter().flatten().map(|piece| piece.anon).find(|anon| anon.is_some());
    let start = below.unwrap_or(middle);
    // The middle's before others: if its pages come from another place it is the newest, by which they are found. (By an older one they would be found too: the newest
    // stays in its file's list as long as the change displaces. No model can tell the two apart.)
    let link = middle.link.or_else(|| [below, above].into_iter().flatten().find_map(|piece| piece.link));
    Piece { range, anon: anon.unwrap_or(AnonId::NONE), link, ..start }
}

fn are_alike<P: Platform>(low: &Piece<'_, P>, high: &Piece<'_, P>) -> bool {
    let (a, b) = (low.attr, high.attr);
    a.prot == b.prot
        && a.flags == b.flags
        && !a.flags.has(Flags::SPECIAL)
        && a.name == b.name
        && low.range.end() == high.range.start()
        && a.backing.is_same(&b.backing)
        && low.page().wrapping_add(low.range.pages()) == high.page()
}

/// Whether pages of both identities may be in one mapping. `kept` is the neighbour's.
fn may_share(kept: AnonId, new: AnonId) -> bool {
    if seeded!("merge-all-identities") {
        return true;
    }
    match (kept.is_some(), new.is_some()) {
        (false, true) => !new.is_inherited(),
        (true, false) => !kept.is_inherited(),
        _ => is_one(kept, new),
    }
}

/// Whether they are the same, which inheritance does not change.
fn is_one(a: AnonId, b: AnonId) -> bool {
    a == b
}

impl<P: Platform> Piece<'_, P> {
    /// The number of its first page.
    fn page(&self) -> u64 {
        self.attr.backing.page().wrapping_add(self.skip)
    }
}
