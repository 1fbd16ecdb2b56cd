//! How many instructions the operations of the range tree take: exact, where times on a shared machine are not.
//!
//! A hundred operations each (a hundred pairs where two are named, a thousand ranges where they are walked), on trees of 1,000
//! and of 100,000 ranges built in random order, as in the example `tree_bench`. Building is not counted; the allocator and
//! grace periods are not met, for the tree has nodes in stock. Limits are in `counts.toml`.
//!
//! Needs valgrind and the runner: `cargo install gungraun-runner --version 0.20.0 --locked`. Without them nothing is measured,
//! and that is said. To get the counts out:
//!
//! ```text
//! cargo bench -p spile-maple --bench counts -- --output-format=json
//! ```
//!
//! prints an object a line. `function_name` and `id` make the name in `counts.toml` (`get` and `n1000`: `get.n1000`), the count
//! is `profiles[0].data.total.metrics.Ir.values.new`.

#[path = "../examples/tree_bench/layout.rs"]
#[expect(dead_code, reason = "the example asks for more")]
mod layout;

use layout::{PAGE, Range, World};
use spile_maple::{Fit, RangeTree, Span, Token};
use spile_rcu::{Global, Rcu};
use std::hint::black_box;

const OPERATIONS: usize = 100;

/// A tree and what is asked of it. Never dropped: that would be counted.
struct Setting {
    tree: RangeTree<Token, Global>,
    /// Distinct ranges of the tree, in random order.
    picks: Vec<Range>,
    keys: Vec<u64>,
}

fn span(range: Range) -> Span {
    Span::new(range.start, range.end - 1).expect("ranges are not empty")
}

fn token(range: Range) -> Token {
    Token::new(range.value as usize).expect("values are small")
}

fn setting(n: usize) -> &'static mut Setting {
    let world = World::new(n);
    let mut tree = RangeTree::new();
    let mut writer = tree.write_mut();
    for &range in &world.shuffled {
        drop(writer.store(span(range), token(range)).expect("there is memory"));
    }
    let picks = world.shuffled[..OPERATIONS].to_vec();
    // Nodes for more writes than follow, so that the tree does not ask the allocator.
    writer.reserve(Span::ALL, 4 * 32 * OPERATIONS).expect("there is memory");
    drop(writer);
    // This thread's first section claims a slot.
    drop(Global.read());
    Box::leak(Box::new(Setting { tree, picks, keys: world.anywhere[..OPERATIONS].to_vec() }))
}

mod measured {
    use super::{Fit, Global, PAGE, Range, Rcu, Setting, Span, black_box, setting, span, token};
    use gungraun::{library_benchmark, library_benchmark_group, main};

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn get(setting: &'static mut Setting) {
        for range in &setting.picks {
            let section = Global.read();
            black_box(setting.tree.get(&section, range.start + PAGE));
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    fn enter_leave(setting: &'static mut Setting) {
        for _ in &setting.picks {
            drop(black_box(Global.read()));
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn store_exact(setting: &'static mut Setting) {
        let mut writer = setting.tree.write_mut();
        for &range in &setting.picks {
            drop(black_box(writer.store(span(range), token(range))).ok());
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn erase_insert_shifted(setting: &'static mut Setting) {
        let mut writer = setting.tree.write_mut();
        for &range in &setting.picks {
            drop(black_box(writer.erase(span(range))).ok());
            drop(black_box(writer.store(span(range.shifted()), token(range))).ok());
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn split_merge(setting: &'static mut Setting) {
        let mut writer = setting.tree.write_mut();
        let entry = |range: Range| (span(range), Some(token(range)));
        for &range in &setting.picks {
            drop(black_box(writer.replace(span(range), range.pieces().map(entry))).ok());
            drop(black_box(writer.replace(span(range), [entry(range)])).ok());
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn highest_gap(setting: &'static mut Setting) {
        let writer = setting.tree.write_mut();
        let fit = Fit::new(8 * PAGE).expect("a size is not zero");
        for &key in &setting.keys {
            black_box(writer.highest_gap(fit, Span::new(0, key).expect("no key is below 0")));
        }
    }

    #[library_benchmark(setup = setting)]
    #[bench::n1000(1_000)]
    #[bench::n100000(100_000)]
    fn iterate_1000(setting: &'static mut Setting) {
        let section = Global.read();
        for entry in setting.tree.iter(&section, Span::ALL).take(1000) {
            black_box(entry);
        }
    }

    library_benchmark_group!(
        name = counts;
        benchmarks = get, enter_leave, store_exact, erase_insert_shifted, split_merge, highest_gap, iterate_1000
    );

    main!(library_benchmark_groups = counts);

    pub fn run() {
        main();
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|place| place.join(program).is_file())
}

fn main() {
    // Under valgrind the runner starts us again, with its own argument and without a PATH.
    let is_started_by_runner = std::env::args().nth(1).is_some_and(|argument| argument == "--gungraun-run");
    let runner = if option_env!("GUNGRAUN_RUNNER").is_some() { None } else { Some("gungraun-runner") };
    let missing = runner.into_iter().chain(["valgrind"]).find(|program| !is_installed(program));
    if let Some(missing) = missing.filter(|_| !is_started_by_runner) {
        eprintln!("counts: nothing measured, {missing} is not in PATH");
        return;
    }
    measured::run();
}
