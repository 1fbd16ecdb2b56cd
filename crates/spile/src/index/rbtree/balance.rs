//! How a tree stays low.
//!
//! **Guarantee.** The root is black, no red node has a red child, and each way from the root to a missing child passes as many
//! black nodes as any other. So no node is deeper than 2·log2(n + 1). Each node's `longest` is right for the `before`s as they
//! are.
//!
//! **Mechanism.** A new node is red, and a red child of a red parent is moved up until a rotation ends it; where a black node
//! vanished, the lack is moved up until a red node can be painted black. Left and right are the same code: a [`Side`] says
//! which. Rotations keep the order:
//!
//! ```text
//!        at                         up
//!       /  \      to the left      /  \
//!      a    up        →          at    c
//!          /  \                 /  \
//!     middle   c               a    middle
//! ```

use super::RbTree;
use super::arena::{Link, Side};

/// Where a subtree hangs. Without a parent it is the whole tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) parent: Link,
    pub(super) side: Side,
}

impl Place {
    pub(super) const ROOT: Self = Self { parent: Link::NIL, side: Side::Left };

    pub(super) const fn of(parent: Link, side: Side) -> Self {
        Self { parent, side }
    }
}

impl<T> RbTree<T> {
    /// Adds `at`, a node fresh from the arena, where nothing hangs.
    pub(super) fn attach(&mut self, at: Link, place: Place) {
        debug_assert_eq!(self.hanging(place), Link::NIL, "nothing hangs there");
        self.hang(at, place);
        self.part_reds(at);
    }

    /// Takes `at` out of the tree. The list still has it: where `at` has two children, the next in the list takes its place.
    pub(super) fn detach(&mut self, at: Link) {
        let between = !self.nodes[at].children.contains(&Link::NIL);
        let leaver = if between { self.nodes[at].next } else { at };
        let (mut lack, was_red) = (self.place(leaver), self.is_red(leaver));
        let [left, right] = self.nodes[leaver].children;
        self.hang(if left == Link::NIL { right } else { left }, lack);
        if between {
            self.succeed(at, leaver);
            lack.parent = if lack.parent == at { leaver } else { lack.parent };
            // The way up from the lack may end before it comes here.
            self.refresh_up(leaver);
        }
        self.refresh_up(lack.parent);
        if !was_red {
            self.fill(lack);
        }
    }

    /// Puts `heir`, which hangs nowhere, into the place of `at`.
    fn succeed(&mut self, at: Link, heir: Link) {
        let [left, right] = self.nodes[at].children;
        self.hang(left, Place::of(heir, Side::Left));
        self.hang(right, Place::of(heir, Side::Right));
        self.nodes[heir].red = self.nodes[at].red;
        self.nodes[heir].longest = self.nodes[at].longest;
        self.hang(heir, self.place(at));
    }

    /// Makes good that `at` and its parent may both be red.
    fn part_reds(&mut self, mut at: Link) {
        while self.is_red(self.nodes[at].parent) {
            let Place { parent, side } = self.place(at);
            let Place { parent: grand, side: outer } = self.place(parent);
            let uncle = self.nodes[grand].child(outer.other());
            if self.is_red(uncle) {
                self.paint(parent, false);
                self.paint(uncle, false);
                self.paint(grand, true);
                at = grand;
                continue;
            }
            if side != outer {
                self.rotate(parent, outer);
            }
            self.paint(self.nodes[grand].child(outer), false);
            self.paint(grand, true);
            self.rotate(grand, outer.other());
            break;
        }
        self.paint(self.root, false);
    }

    /// Makes good that ways through `lack` pass one black node too few.
    fn fill(&mut self, mut lack: Place) {
        while lack.parent != Link::NIL && !self.is_red(self.hanging(lack)) {
            let Place { parent, side } = lack;
            let beside = Place::of(parent, side.other());
            if self.is_red(self.hanging(beside)) {
                self.paint(self.hanging(beside), false);
                self.paint(parent, true);
                self.rotate(parent, side);
            }
            if self.borrow(parent, side) {
                return;
            }
            self.paint(self.hanging(beside), true);
            lack = self.place(parent);
        }
        self.paint(self.hanging(lack), false);
    }

    /// Fills the lack on this side of `parent` for good, if the black sibling has a red child to spare.
    fn borrow(&mut self, parent: Link, side: Side) -> bool {
        let beside = Place::of(parent, side.other());
        let sibling = self.hanging(beside);
        let (near, far) = (self.nodes[sibling].child(side), self.nodes[sibling].child(side.other()));
        if self.is_red(far) {
            self.paint(far, false);
        } else if self.is_red(near) {
            self.paint(sibling, false);
            self.rotate(sibling, side.other());
        } else {
            return false;
        }
        self.paint(self.hanging(beside), self.is_red(parent));
        self.paint(parent, false);
        self.rotate(parent, side);
        true
    }

    /// Moves `at` down to `side`. Its child on the other side comes up.
    fn rotate(&mut self, at: Link, side: Side) {
        let place = self.place(at);
        let up = self.nodes[at].child(side.other());
        let middle = self.nodes[up].child(side);
        self.hang(middle, Place::of(at, side.other()));
        self.hang(up, place);
        self.hang(at, Place::of(up, side));
        // Below `up` is what was below `at`.
        self.nodes[up].longest = self.nodes[at].longest;
        self.nodes[at].longest = self.longest_at(at);
    }

    fn hang(&mut self, at: Link, place: Place) {
        match self.nodes.get_mut(place.parent) {
            Some(parent) => parent.children[place.side as usize] = at,
            None => self.root = at,
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.parent = place.parent;
        }
    }

    fn hanging(&self, place: Place) -> Link {
        self.nodes.get(place.parent).map_or(self.root, |parent| parent.child(place.side))
    }

    pub(super) fn place(&self, at: Link) -> Place {
        let parent = self.nodes[at].parent;
        let is_right = self.nodes.get(parent).is_some_and(|node| node.child(Side::Right) == at);
        Place { parent, side: if is_right { Side::Right } else { Side::Left } }
    }

    /// A missing child is black.
    fn is_red(&self, at: Link) -> bool {
        self.nodes.get(at).is_some_and(|node| node.red)
    }

    fn paint(&mut self, at: Link, red: bool) {
        if let Some(node) = self.nodes.get_mut(at) {
            node.red = red;
        }
    }
}
