//! What the command line can be told to do, a file each.

pub mod bench;
pub mod designs;
pub mod maps;
pub mod race;
pub mod replay;
pub mod tour;

/// How a verb ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Good,
    /// Something is not as it should be: what was asked to be checked differs, or the input was torn.
    Bad,
}
