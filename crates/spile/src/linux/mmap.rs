//! mmap(2).

use super::{Errno, Opened, TASK_SIZE, map, page_align};
use crate::addr::{PAGE, PAGE_SHIFT, Prot, Range};
use crate::backing::File;
use crate::change::{Change, Elsewhere};
use crate::locking::Locking;
use crate::mm::Mm;
use crate::platform::Platform;
use crate::vma::{Attr, Backing, Flags};

impl<P: Platform, L: Locking> Mm<P, L> {
    /// Maps `len` bytes of `file`, from `offset` on, or of anonymous memory, and says where. `prot` and `flags` are Linux's. With
    /// `MAP_ANONYMOUS` a file is ignored. May sleep.
    ///
    /// # Errors
    ///
    /// As mmap(2). Nothing was changed.
    ///
    /// # Panics
    ///
    /// If `file` belongs to another platform. Nothing was changed.
    pub fn mmap(&self, addr: u64, len: u64, prot: u32, flags: u32, file: Option<&Opened<P>>, offset: u64) -> Result<u64, Errno> {
        if !offset.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let file = if flags & map::ANONYMOUS != 0 { None } else { Some(file.ok_or(Errno::EBADF)?) };
        let request = Request { exec_only: self.exec_only(prot), ..Request::new(addr, len, prot, flags, offset)? };
        // With nothing held: it may wait for memory. If there is none, that is said in its turn.
        let wants_object = file.is_none() && request.flags & map::TYPE == map::SHARED;
        let object = if wants_object { File::anonymous(self.platform().clone(), request.len) } else { None };
        let contents = Contents { file, object };
        let (at, locked) = self.change_somewhere(request.fixed(), |change| request.perform(change, &contents))?;
        self.wait_until_flushed(at);
        let populate = flags & (map::POPULATE | map::NONBLOCK) == map::POPULATE;
        if populate || locked {
            // Errors are not reported: the mapping is made.
            let _ = self.populate(at);
        }
        Ok(at.start())
    }
}

/// The numbers of a call that have been looked at.
struct Request {
    addr: u64,
    len: u64,
    prot: Prot,
    flags: u32,
    offset: u64,
    exec_only: Flags,
}

/// What is to be mapped, unless it is private anonymous memory.
struct Contents<'f, P: Platform> {
    file: Option<&'f Opened<P>>,
    /// Anonymous memory that is to be shared.
    object: Option<File<P>>,
}

impl Request {
    fn new(addr: u64, len: u64, prot: u32, flags: u32, offset: u64) -> Result<Self, Errno> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let flags = if flags & map::FIXED_NOREPLACE != 0 { flags | map::FIXED } else { flags };
        let addr = if flags & map::FIXED != 0 { addr } else { addr & !(PAGE - 1) };
        let len = page_align(len);
        if len == 0 {
            return Err(Errno::ENOMEM);
        }
        if (offset >> PAGE_SHIFT).checked_add(len >> PAGE_SHIFT).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        Ok(Self { addr, len, prot: Prot::from_bits(prot), flags, offset, exec_only: Flags::NONE })
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Under the right to change: where, what, whether it may, and then does it. Also says whether it is locked.
    fn perform<P: Platform, L: Locking>(
        &self,
        change: &mut Change<'_, P, L>,
        contents: &Contents<'_, P>,
    ) -> Result<Result<(Range, bool), Errno>, Elsewhere> {
        if !change.mm.may_map() {
            return Ok(Err(Errno::ENOMEM));
        }
        match self.place(change) {
            Ok(at) => change.may_map(at).map(|at| self.map_at(at, change, contents)),
            Err(errno) => Ok(Err(errno)),
        }
    }

    /// Where it must be, if it must be somewhere.
    fn fixed(&self) -> Option<Range> {
        Range::with_len(self.addr, self.len).ok().filter(|_| self.has(map::FIXED))
    }

    fn map_at<P: Platform, L: Locking>(
        &self,
        at: Range,
        change: &mut Change<'_, P, L>,
        contents: &Contents<'_, P>,
    ) -> Result<(Range, bool), Errno> {
        if self.has(map::FIXED_NOREPLACE) && change.first(at).is_some() {
            return Err(Errno::EEXIST);
        }
        let locked = self.has(map::LOCKED);
        if locked && change.mm.may_not_lock() {
            return Err(Errno::EPERM);
        }
        if locked && !change.mm.may_lock(at.pages()) {
            return Err(Errno::EAGAIN);
        }
        let attr = match contents.file {
            Some(file) => self.file_attr(file)?,
            None => self.anon_attr(contents.object.as_ref(), at)?,
        };
        let replaced = change.mapped_pages(at);
        if !change.mm.may_expand(attr.prot, attr.flags, at.pages() - replaced) {
            // Linux has cut out what is replaced by then, and puts it back in pieces.
            change.split(at)?;
            return Err(Errno::ENOMEM);
        }
        if !change.mm.may_split() && change.cuts_in_two(at) {
            return Err(Errno::ENOMEM);
        }
        change.map(at, attr)?;
        Ok((at, locked))
    }

    fn place<P: Platform, L: Locking>(&self, change: &Change<'_, P, L>) -> Result<Range, Errno> {
        if self.len > TASK_SIZE {
            return Err(Errno::ENOMEM);
        }
        if !self.has(map::FIXED) {
            let lowest = change.mm.layout.all.start();
            let hint = if self.addr == 0 { 0 } else { self.addr.max(lowest) };
            return change.unmapped_area(hint, self.len).ok_or(Errno::ENOMEM);
        }
        if self.addr > TASK_SIZE - self.len {
            return Err(Errno::ENOMEM);
        }
        if !self.addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if self.addr < change.mm.layout.all.start() {
            return Err(Errno::EPERM);
        }
        Ok(Range::of(self.addr, self.addr + self.len))
    }

    /// What all kinds of mappings take from the flags.
    fn common(&self) -> Flags {
        Flags::when(self.has(map::GROWSDOWN), Flags::GROWS_DOWN)
            .with(Flags::when(self.has(map::LOCKED), Flags::LOCKED))
            .with(Flags::when(self.has(map::NORESERVE), Flags::NO_RESERVE))
            .with(Flags::when(self.has(map::STACK), Flags::NO_HUGE_PAGE))
            .with(Flags::when(self.has(map::SYNC), Flags::SYNC))
            .with(self.exec_only)
    }

    fn file_attr<P: Platform>(&self, opened: &Opened<P>) -> Result<Attr<P>, Errno> {
        // The longest file there can be.
        let last = (i64::MAX as u64).checked_sub(self.len).ok_or(Errno::EOVERFLOW)?;
        if self.offset >> PAGE_SHIFT > last >> PAGE_SHIFT {
            return Err(Errno::EOVERFLOW);
        }
        let shared = match self.flags & map::TYPE {
            map::SHARED => true,
            map::SHARED_VALIDATE if self.flags & !map::LEGACY != 0 => {
                return Err(Errno::EOPNOTSUPP);
            }
            map::SHARED_VALIDATE => true,
            map::PRIVATE => false,
            _ => return Err(Errno::EINVAL),
        };
        let rights = opened.rights;
        if shared && self.prot.has(Prot::W) && !rights.may_write() || !rights.may_read() {
            return Err(Errno::EACCES);
        }
        if self.has(map::GROWSDOWN) {
            return Err(Errno::EINVAL);
        }
        let flags = self
            .common()
            .with(Flags::when(shared, Flags::SHARED))
            .with(Flags::when(!shared || rights.may_write(), Flags::MAY_WRITE));
        let backing = Backing::File(opened.file.clone(), self.offset >> PAGE_SHIFT);
        Ok(accounted(Attr { prot: self.prot, flags, backing, name: None }))
    }

    fn anon_attr<P: Platform>(&self, object: Option<&File<P>>, at: Range) -> Result<Attr<P>, Errno> {
        let backing = match self.flags & map::TYPE {
            map::SHARED if self.has(map::GROWSDOWN) => return Err(Errno::EINVAL),
            map::SHARED => Backing::File(object.ok_or(Errno::ENOMEM)?.clone(), 0),
            map::PRIVATE => Backing::Anon(at.start() >> PAGE_SHIFT),
            _ => return Err(Errno::EINVAL),
        };
        let shared = Flags::when(!backing.is_anon(), Flags::SHARED);
        let flags = self.common().with(shared).with(Flags::MAY_WRITE);
        Ok(accounted(Attr { prot: self.prot, flags, backing, name: None }))
    }
}

/// Notes that a mapping counts as promised memory, if it does.
pub(super) fn accounted<P: Platform>(attr: Attr<P>) -> Attr<P> {
    let counts = attr.prot.has(Prot::W) && !attr.is_shared() && !attr.flags.has(Flags::NO_RESERVE);
    Attr { flags: attr.flags.with(Flags::when(counts, Flags::ACCOUNTED)), ..attr }
}

impl<P: Platform, L: Locking> Change<'_, P, L> {
    /// How many pages of `at` are mapped.
    fn mapped_pages(&self, at: Range) -> u64 {
        if self.first(at).is_none() {
            return 0;
        }
        self.iter(at).filter_map(|vma| vma.range().overlap(at)).map(Range::pages).sum()
    }

    /// Where `len` bytes go: at the hint if they fit there, or else below the layout's base as high as they fit, or else above a
    /// third of the address space as low as they fit. A mapping that grows keeps its distance.
    pub(super) fn unmapped_area(&self, hint: u64, len: u64) -> Option<Range> {
        if hint != 0 && hint <= TASK_SIZE - len {
            let at = Range::of(hint, hint + len);
            if self.first(at).is_none() && self.keeps_distance(at) {
                return Some(at);
            }
        }
        self.highest_area(len).or_else(|| self.lowest_area(len))
    }

    fn highest_area(&self, len: u64) -> Option<Range> {
        let mut high = self.mm.layout.base;
        loop {
            let at = self.highest_gap(len, Range::new(self.mm.layout.all.start(), high).ok()?)?;
            match self.intruded(at) {
                None => return Some(at),
                Some(limit) => high = limit,
            }
        }
    }

    fn lowest_area(&self, len: u64) -> Option<Range> {
        let mut low = page_align(TASK_SIZE / 3);
        loop {
            let at = self.lowest_gap(len, Range::new(low, TASK_SIZE).ok()?)?;
            match self.intruded(at) {
                None => return Some(at),
                Some(_) => low = self.first(Range::of(at.end(), TASK_SIZE))?.range().end(),
            }
        }
    }

    fn keeps_distance(&self, at: Range) -> bool {
        self.intruded(at).is_none()
    }

    /// Where the distance begins that the next mapping above keeps, if `at` reaches into it.
    fn intruded(&self, at: Range) -> Option<u64> {
        let gap = self.mm.layout.stack_gap;
        let near = Range::new(at.end(), at.end().saturating_add(gap).min(TASK_SIZE)).ok()?;
        let above = self.first(near).filter(|vma| vma.attr().flags.has(Flags::GROWS_DOWN))?;
        let limit = above.range().start().saturating_sub(gap);
        (limit < at.end()).then_some(limit)
    }
}
