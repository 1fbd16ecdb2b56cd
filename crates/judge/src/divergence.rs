//! Differences that are known and explained.
//!
//! **Guarantee.** A difference that a class explains ends its sequence without being reported, and is counted under the
//! class's name. There are never more than [`MOST`] classes.
//!
//! **Mechanism.** A class is a name, a reason and a predicate over what was seen. A sequence ends at an explained
//! difference, because the two sides are in different states from there on.

use crate::call::Call;
use crate::subject::{MapLine, Outcome, PageView};
use crate::world::World;

/// The most classes there may be: whoever needs another one should first make one of these go away.
pub const MOST: usize = 5;

/// What was seen where the two sides differ.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Results of a call.
    Outcome(&'a Outcome, &'a Outcome),
    /// Lines of the listing; `None` where one side has none.
    Line(Option<&'a MapLine>, Option<&'a MapLine>),
    /// The same page.
    Page(u64, &'a PageView, &'a PageView),
    /// Pages counted as mapped or locked.
    Counted,
}

/// An explained class of differences.
#[derive(Debug)]
pub struct Class {
    /// A short name.
    pub name: &'static str,
    /// Why it is right, or at least intended.
    pub reason: &'static str,
    /// Whether a difference after a call belongs to it.
    pub explains: fn(&World, &Call, &Seen<'_>) -> bool,
}

/// The classes.
pub const CLASSES: &[Class] = &[];

const _: () = assert!(CLASSES.len() <= MOST);

/// The class that explains a difference, if one does.
pub fn explain(classes: &'static [Class], world: &World, call: &Call, seen: &Seen<'_>) -> Option<&'static Class> {
    classes.iter().find(|class| (class.explains)(world, call, seen))
}
