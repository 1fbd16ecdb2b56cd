//! Random verbs and accesses against a model with one entry per page.
//!
//! **Guarantee.** For each seed tried: after every verb the mappings, expanded to pages, are the model's; every byte that a program or the
//! kernel sees is the model's; a verb without memory changes nothing; a page's anonymous identity never becomes another's; at the end
//! no frame is left. A failure names its seed and operation.
//!
//! **Mechanism.** A program has two CPUs, so that one's translations must be flushed by the other. It forks, and its children act
//! beside it, up to two deep. Two bytes of each page are watched, its first and its last. `SPILE_SEEDS` sets the number of seeds.

mod seeds;

use seeds::seeds;
use spile::backing::File;
use spile::{
    AnonId, Attr, Backing, Denied, Error, FaultKind, Flags, Kind, Layout, Locking, Mm, PAGE, Place, Prot, Range, Unmapping,
    Waiting,
};
use spile_sim::{Content, Failures, Rng, Sim, User};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Where verbs act: around the end of a leaf table.
const BASE: u64 = 0x3fc0_0000 + 480 * PAGE;
const PAGES: u64 = 64;
const FILE_PAGES: u64 = 12;
/// The last page of a file has so many bytes.
const LAST_BYTES: u64 = 100;

type Bytes = [u8; 2];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Anon,
    File { file: usize, page: u64, shared: bool },
}

#[derive(Clone, Debug)]
struct Page {
    prot: Prot,
    flags: Flags,
    of: Of,
    /// What was written privately.
    own: Option<Bytes>,
    /// The identity it was seen with.
    id: AnonId,
}

#[derive(Clone, Debug, Default)]
struct Model {
    pages: BTreeMap<u64, Page>,
}

/// What all spaces share.
struct World {
    sim: Sim,
    seed: u64,
    rng: RefCell<Rng>,
    files: Vec<File<Sim>>,
    /// The bytes of each page of each file.
    contents: RefCell<Vec<Vec<Bytes>>>,
    op: Cell<usize>,
    ops: usize,
    failing: bool,
}

fn initial(file: usize, page: u64) -> Bytes {
    match file {
        2 => [0, 0],
        _ => [(file as u64 * 50 + page) as u8 + 1, if page == FILE_PAGES - 1 { 0 } else { page as u8 + 101 }],
    }
}

impl World {
    fn new(seed: u64, ops: usize, failing: bool) -> Self {
        let sim = Sim::builder().cpus(8).frames(400).seed(seed).build();
        let len = (FILE_PAGES - 1) * PAGE + LAST_BYTES;
        let file = |file: usize| {
            let mut bytes = vec![0; len as usize];
            for page in 0..FILE_PAGES {
                let [first, last] = initial(file, page);
                bytes[(page * PAGE) as usize] = first;
                if let Some(byte) = bytes.get_mut((page * PAGE + PAGE - 1) as usize) {
                    *byte = last;
                }
            }
            let content = Content::new(bytes);
            content.set_delay(file as u32 * 2);
            sim.file(&content, len).unwrap()
        };
        let files = vec![file(0), file(1), File::anonymous(sim.clone(), len).unwrap()];
        let contents = (0..files.len()).map(|file| (0..FILE_PAGES).map(|page| initial(file, page)).collect()).collect();
        let rng = RefCell::new(Rng::new(seed));
        Self { sim, seed, rng, files, contents: RefCell::new(contents), op: Cell::new(0), ops, failing }
    }

    fn below(&self, n: u64) -> u64 {
        self.rng.borrow_mut().below(n)
    }

    fn range(&self) -> Range {
        let longest = [2, 6, PAGES][self.below(3) as usize];
        let first = self.below(PAGES);
        let count = (1 + self.below(longest)).min(PAGES - first);
        Range::with_len(BASE + first * PAGE, count * PAGE).unwrap()
    }

    fn address(&self) -> u64 {
        BASE + self.below(PAGES) * PAGE + if self.below(2) == 0 { 0 } else { PAGE - 1 }
    }

    fn prot(&self) -> Prot {
        match self.below(8) {
            0 => Prot::NONE,
            1 | 2 => Prot::R,
            3 => Prot::R.with(Prot::X),
            4 => Prot::RW.with(Prot::X),
            _ => Prot::RW,
        }
    }

    fn attr(&self) -> impl Fn(Range) -> Attr<Sim> + use<> {
        let prot = self.prot();
        let file = self.below(5) as usize;
        let (shared, page, numbered) = (self.below(2) == 0, self.below(FILE_PAGES), self.below(4));
        let backing = self.files.get(file).cloned();
        let locked = Flags::when(self.below(6) == 0, Flags::RANDOM);
        move |at| match &backing {
            Some(file) => {
                let flags = Flags::MAY_WRITE.with(Flags::when(shared, Flags::SHARED)).with(locked);
                // In a row with what is mapped elsewhere, so that mappings merge.
                let page = if numbered > 0 { at.start() / PAGE % FILE_PAGES } else { page };
                Attr { prot, flags, backing: Backing::File(file.clone(), page), name: None }
            }
            None => {
                let anon: Attr<Sim> = Attr::anon(at.start(), prot);
                Attr { flags: anon.flags.with(locked), ..anon }
            }
        }
    }

    fn file_number(&self, file: &File<Sim>) -> usize {
        self.files.iter().position(|known| known.is_same(file)).unwrap()
    }

    fn page_of(&self, attr: &Attr<Sim>, skipped: u64) -> Page {
        let of = match &attr.backing {
            Backing::File(file, page) => {
                Of::File { file: self.file_number(file), page: page + skipped, shared: attr.is_shared() }
            }
            _ => Of::Anon,
        };
        Page { prot: attr.prot, flags: attr.flags, of, own: None, id: AnonId::NONE }
    }
}

/// What an access of the model gives.
fn access(world: &World, model: &mut Model, at: u64, write: Option<u8>) -> Result<u8, Denied> {
    let which = usize::from(!at.is_multiple_of(PAGE));
    let page = model.pages.get_mut(&(at / PAGE)).ok_or(Denied::Unmapped)?;
    let allowed = if write.is_some() { page.prot.has(Prot::W) } else { page.prot.bits() != 0 };
    if !allowed {
        return Err(Denied::Protected);
    }
    let mut contents = world.contents.borrow_mut();
    let (shown, shared): (Bytes, Option<&mut Bytes>) = match (&page.own, &page.of) {
        (Some(own), _) => (*own, None),
        (None, Of::Anon) => ([0, 0], None),
        (None, Of::File { page, .. }) if *page >= FILE_PAGES => return Err(Denied::Bus),
        (None, Of::File { file, page, shared }) => {
            let bytes = &mut contents[*file][*page as usize];
            (*bytes, shared.then_some(bytes))
        }
    };
    let Some(value) = write else { return Ok(shown[which]) };
    match shared {
        Some(bytes) => bytes[which] = value,
        None => {
            let mut own = shown;
            own[which] = value;
            page.own = Some(own);
        }
    }
    Ok(value)
}

/// The mappings are the model's pages; and the identities have not changed.
fn compare<L: Locking>(world: &World, mm: &Mm<Sim, L>, model: &mut Model) {
    let mut seen = 0;
    let mut count = 0;
    let mut last = 0;
    mm.each_vma(|vma| {
        let range = vma.range();
        assert!(range.start() >= last, "{range} is out of order");
        last = range.end();
        count += 1;
        for (skipped, number) in (range.start() / PAGE..range.end() / PAGE).enumerate() {
            let is = world.page_of(vma.attr(), skipped as u64);
            let Some(should) = model.pages.get_mut(&number) else { panic!("page {number:#x} is mapped in {mm:?}") };
            assert_eq!((is.prot, is.flags, &is.of), (should.prot, should.flags, &should.of), "page {number:#x} in {mm:?}");
            let id = vma.anon();
            assert!(
                !should.id.is_some() || should.id == id,
                "the identity of page {number:#x} was {:?} and is {id:?}, in {mm:?}",
                should.id
            );
            assert!(should.id.is_some() || !id.is_inherited(), "page {number:#x} inherited {id:?}, in {mm:?}");
            let private = should.own.is_some();
            assert!(!private || id.is_some(), "page {number:#x} was written privately and is nobody's, in {mm:?}");
            should.id = id;
            seen += 1;
        }
    });
    assert_eq!(seen, model.pages.len(), "pages are missing: {mm:?} against {:?}", model.pages.keys());
    assert_eq!(mm.usage().get(Kind::Total), seen as u64);
    assert_eq!(mm.usage().get(Kind::Mappings), count);
}

fn compare_bytes<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &mut Model) {
    for at in (0..PAGES).flat_map(|page| [BASE + page * PAGE, BASE + page * PAGE + PAGE - 1]) {
        assert_eq!(user.load(at), access(world, model, at, None), "at {at:#x} in {:?}", user.mm());
    }
}

/// A program: its CPUs, and what it should be.
struct Actor<'a, L: Locking> {
    users: [&'a User<'a, 'a, L>; 2],
    model: &'a RefCell<Model>,
}

fn life<L: Locking>(world: &World, mm: &Mm<Sim, L>, model: Model, others: &[&Actor<'_, L>], budget: usize) {
    let depth = others.len();
    let cpus = [world.sim.cpu(depth * 2), world.sim.cpu(depth * 2 + 1)];
    let users = [cpus[0].enter(mm), cpus[1].enter(mm)];
    let model = RefCell::new(model);
    let this = Actor { users: [&users[0], &users[1]], model: &model };
    let mut actors = others.to_vec();
    actors.push(&this);
    let end = (world.op.get() + budget).min(world.ops);
    while world.op.get() < end {
        world.op.set(world.op.get() + 1);
        let who = if world.below(4) == 0 { world.below(actors.len() as u64) as usize } else { depth };
        let actor = actors[who];
        let user = actor.users[world.below(2) as usize];
        if world.failing && world.below(3) == 0 {
            world.sim.fail(Failures::From(world.below(4)));
        }
        let child = step(world, actor, user);
        world.sim.fail(Failures::Never);
        compare(world, user.mm(), &mut actor.model.borrow_mut());
        if let Some((child, copy)) = child.filter(|_| depth < 2) {
            life(world, &child, copy, &actors, budget / 4);
        }
        if world.op.get().is_multiple_of(16) {
            compare_bytes(world, user, &mut actor.model.borrow_mut());
        }
    }
    compare_bytes(world, this.users[0], &mut model.borrow_mut());
}

fn step<L: Locking>(world: &World, actor: &Actor<'_, L>, user: &User<'_, '_, L>) -> Option<Child<L>> {
    let mut model = actor.model.borrow_mut();
    let model = &mut *model;
    match world.below(32) {
        0..=5 => map(world, user, model),
        6 | 7 => {
            let range = world.range();
            assert_eq!(user.unmap(range), Ok(()));
            model.pages.retain(|page, _| !range.contains(page * PAGE));
        }
        8..=10 => protect(world, user, model),
        11 => {
            let range = world.range();
            user.discard(range);
            for number in range.start() / PAGE..range.end() / PAGE {
                if let Some(page) = model.pages.get_mut(&number) {
                    page.own = None;
                }
            }
        }
        12 => return fork(world, user, model),
        13 => relocate(world, user, model),
        14 => kernel(world, user, model),
        15..=20 => {
            let at = world.address();
            same(world, user.load(at), access(world, model, at, None), at);
        }
        _ => {
            let (at, value) = (world.address(), world.below(255) as u8 + 1);
            let mut tried = model.clone();
            let before = world.contents.borrow().clone();
            let should = access(world, &mut tried, at, Some(value)).map(drop);
            let is = user.store(at, value);
            if world.failing && is == Err(Denied::NoMemory) {
                world.contents.replace(before);
            } else {
                assert_eq!(is, should, "a store to {at:#x}");
                *model = tried;
            }
        }
    }
    None
}

fn same(world: &World, is: Result<u8, Denied>, should: Result<u8, Denied>, at: u64) {
    if !(world.failing && is == Err(Denied::NoMemory)) {
        assert_eq!(is, should, "a load from {at:#x}");
    }
}

fn map<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &mut Model) {
    let attr = world.attr();
    let range = world.range();
    let taken = model.pages.keys().any(|page| range.contains(page * PAGE));
    let result = match world.below(6) {
        0 => {
            let result = user.map(Place::At(range), &attr);
            assert_eq!(result, if taken { Err(Error::Occupied(range)) } else { Ok(range) });
            result
        }
        1 => {
            let result = user.map(Place::Anywhere(range.len()), &attr);
            if let Ok(got) = result {
                assert_eq!(got.len(), range.len());
                assert!(!model.pages.keys().any(|page| got.contains(page * PAGE)), "{got} was taken");
            }
            result
        }
        _ => user.map(Place::Over(range), &attr),
    };
    if let Ok(got) = result {
        let attr = attr(got);
        for (skipped, number) in (got.start() / PAGE..got.end() / PAGE).enumerate() {
            model.pages.insert(number, world.page_of(&attr, skipped as u64));
        }
    }
}

fn protect<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &mut Model) {
    let (range, prot) = (world.range(), world.prot());
    let result = user.protect(range, prot);
    let mut should = Ok(());
    for number in range.start() / PAGE..range.end() / PAGE {
        match model.pages.get_mut(&number) {
            Some(page) => page.prot = prot,
            None => {
                should = Err(Error::Unmapped(number * PAGE));
                break;
            }
        }
    }
    assert_eq!(result, should);
}

/// A child, and what it should be.
type Child<L> = (Mm<Sim, L>, Model);

fn fork<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &Model) -> Option<Child<L>> {
    let child = match user.fork() {
        Ok(child) => child,
        Err(Error::NoMemory) if world.failing => return None,
        Err(other) => panic!("{other}"),
    };
    let mut copy = model.clone();
    // Its identities are its own.
    child.each_vma(|vma| {
        for number in vma.range().start() / PAGE..vma.range().end() / PAGE {
            let page = copy.pages.get_mut(&number).expect("the child's pages are the parent's");
            assert_eq!(vma.anon().is_some(), page.id.is_some(), "page {number:#x} of the child");
            page.id = vma.anon();
        }
    });
    compare(world, &child, &mut copy);
    Some((child, copy))
}

/// Moves a part of one mapping over whatever is elsewhere.
fn relocate<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &mut Model) {
    let (from, to) = (world.range(), world.range());
    let len = from.len().min(to.len());
    let mut whole = None;
    user.mm().each_vma(|vma| whole = whole.or(Some(vma.range()).filter(|range| range.contains(from.start()))));
    let Some(len) = whole.map(|whole| len.min(whole.end() - from.start())) else { return };
    let (from, to) = (Range::with_len(from.start(), len).unwrap(), Range::with_len(to.start(), len).unwrap());
    if from.overlap(to).is_some() {
        return;
    }
    const MAYMOVE_FIXED: u32 = 3;
    let result = user.cpu().call(|| user.mm().mremap(from.start(), len, len, MAYMOVE_FIXED, to.start()));
    let mut ids = BTreeMap::new();
    user.mm().each_vma(|vma| {
        for number in vma.range().start() / PAGE..vma.range().end() / PAGE {
            ids.insert(number, vma.anon());
        }
    });
    assert!(result.is_ok() || world.failing, "a move from {from} to {to}: {result:?}");
    if result.is_ok() || !ids.keys().any(|number| to.contains(number * PAGE)) {
        model.pages.retain(|number, _| !to.contains(number * PAGE));
    }
    if result.is_ok() {
        for number in from.start() / PAGE..from.end() / PAGE {
            if let Some(page) = model.pages.remove(&number) {
                let number = number - from.start() / PAGE + to.start() / PAGE;
                model.pages.insert(number, Page { id: ids[&number], ..page });
            }
        }
    }
}

/// The kernel reads or writes a stretch.
fn kernel<L: Locking>(world: &World, user: &User<'_, '_, L>, model: &mut Model) {
    let range = world.range();
    let (from, len) = (range.start(), (range.len().min(3 * PAGE)) as usize);
    let writes = world.below(2) == 0;
    let value = world.below(255) as u8 + 1;
    let mut bytes = vec![value; len];
    let result = user.cpu().call(|| match writes {
        true => user.mm().write_user(from, &bytes),
        false => user.mm().read_user(from, &mut bytes),
    });
    let copied = result.map_or_else(|partial| partial.copied, |()| len) as u64;
    assert_eq!(copied % PAGE, 0);
    for at in (0..copied).filter(|at| at % PAGE == 0 || at % PAGE == PAGE - 1) {
        let is = access(world, model, from + at, writes.then_some(value));
        assert_eq!(is, Ok(bytes[at as usize]), "the kernel at {:#x}", from + at);
    }
    if let Err(partial) = result
        && !(world.failing && partial.why == Denied::NoMemory)
    {
        let mut tried = model.clone();
        let why = access(world, &mut tried, from + copied, writes.then_some(value));
        assert_eq!(why, Err(partial.why), "the kernel at {:#x}", from + copied);
    }
}

struct Named<'w>(&'w World);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, operation {}", self.0.seed, self.0.op.get());
        }
    }
}

fn run<L: Locking>(seed: u64, ops: usize, failing: bool) {
    let world = World::new(seed, ops, failing);
    let named = Named(&world);
    let mut mm: Mm<Sim, L> = Mm::new(world.sim.clone(), Layout::default()).unwrap();
    mm.set_unmapping(Unmapping::ALL[seed as usize % 3]);
    // Children do as their parents.
    let waiting = if seed.is_multiple_of(2) { Waiting::Drop } else { Waiting::Hold };
    FaultKind::ALL.into_iter().for_each(|kind| mm.set_waiting(kind, waiting));
    life(&world, &mm, Model::default(), &[], ops);
    drop(mm);
    let sim = world.sim.clone();
    sim.settle();
    for (file, pages) in world.contents.borrow().iter().enumerate() {
        for (page, bytes) in pages.iter().enumerate().filter(|(page, bytes)| **bytes != initial(file, *page as u64)) {
            assert!(world.files[file].is_dirty(page as u64), "file {file} page {page} is {bytes:?} and not dirty");
        }
    }
    drop(named);
    drop(world);
    sim.finish();
}

fn runs<L: Locking>(first: u64, ops: usize, failing: bool) {
    let seeds = seeds(150);
    (first..first + seeds).for_each(|seed| run::<L>(seed, ops, failing));
    println!("{seeds} seeds of {ops} operations");
}

fn with_memory<L: Locking>() {
    runs::<L>(0, 300, false);
}

fn without_memory<L: Locking>() {
    runs::<L>(20_000, 300, true);
}

spile::test_each_design! {
    agrees => with_memory;
    agrees_without_memory => without_memory;
}

/// What one program at a time finds of seeded bugs.
#[cfg(feature = "sched")]
#[test]
fn controls() {
    if std::env::var_os("SPILE_MUTATE").is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let bugs = ["merge-all-identities", "relocate-without-flush", "protect-without-flush", "fork-without-flush", "p9-unclipped"];
    let found = |bug: &&str| {
        let mut child = std::process::Command::new(&this);
        let child = child.args(["--exact", "vma_refcount::agrees"]).env("SPILE_MUTATE", format!("bug:{bug}"));
        !child.output().unwrap().status.success()
    };
    let missed: Vec<_> = bugs.iter().filter(|bug| !found(bug)).collect();
    assert!(missed.is_empty(), "seeded bugs that no seed found: {missed:?}");
}
