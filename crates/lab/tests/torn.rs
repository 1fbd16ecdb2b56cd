//! Recordings that are damaged.
//!
//! **Guarantee.** Whatever is in a file: it is read as far as it makes sense, what is wrong is told with its line, and what was read can be replayed.
//!
//! **Mechanism.** A real recording with a few changes by a seed. `SPILE_SEEDS` sets how many seeds. The fuzz target `recording` goes on where this ends.

use spile::VmaRefcount;
use spile_lab::concurrent::{Plan, WINDOW, as_recorded, freely};
use spile_lab::replay::replayed;
use spile_mmtrace::salvaged;
use spile_sim::Rng;
use std::panic::catch_unwind;

fn text() -> String {
    let mut text = Vec::new();
    let packed = include_bytes!("../../mmtrace/traces/ls.mmt.xz");
    lzma_rs::xz_decompress(&mut &packed[..], &mut text).expect("the bundled recording is whole");
    String::from_utf8(text).expect("it is text")
}

/// A word that may stand somewhere.
fn word(rng: &mut Rng) -> String {
    let words = [
        "0",
        "-22",
        "1",
        "fff",
        "1000",
        "7fffffffffff",
        "ffffffffffffffff",
        "8000000000000000",
        "f1",
        "a",
        "rwxs",
        "---p",
        "x",
        "mmap",
        "munmap",
        "S",
    ];
    let n = rng.below(words.len() as u64 + 4) as usize;
    words.get(n).map_or_else(|| format!("{:x}", rng.below(u64::MAX) >> rng.below(64)), ToString::to_string)
}

fn damage(lines: &mut Vec<String>, rng: &mut Rng) {
    let at = rng.below(lines.len() as u64) as usize;
    match rng.below(6) {
        0 if lines.len() > 1 => _ = lines.remove(at),
        0 => {}
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let other = rng.below(lines.len() as u64) as usize;
            lines.swap(at, other);
        }
        3 => lines.truncate(at.max(1)),
        _ => {
            let mut words: Vec<String> = lines[at].split(' ').map(str::to_owned).collect();
            let which = rng.below(words.len() as u64) as usize;
            words[which] = word(rng);
            lines[at] = words.join(" ");
        }
    }
}

fn seeds() -> u64 {
    std::env::var("SPILE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400)
}

#[test]
fn whatever_is_in_a_file_is_answered() {
    let whole: Vec<String> = text().lines().map(str::to_owned).collect();
    let (mut refused, mut replays) = (0, 0);
    for seed in 0..seeds() {
        let mut rng = Rng::new(seed);
        let mut lines = whole.clone();
        (0..=rng.below(4)).for_each(|_| damage(&mut lines, &mut rng));
        let text = lines.join("\n") + "\n";
        let answered = catch_unwind(|| {
            let read = salvaged(text.as_bytes());
            let report = replayed::<VmaRefcount>(&read.steps, &mut |_| ());
            for footprints in [as_recorded(&read.steps, &mut |_| ()), freely(&read.steps)] {
                Plan::new(&read.steps, &footprints, 3, WINDOW);
            }
            (read.torn, report.steps)
        });
        let Ok((torn, steps)) = answered else {
            let place = std::env::temp_dir().join("spile-torn.txt");
            std::fs::write(&place, text).expect("there is room");
            panic!("seed {seed} is not answered; its recording is in {}", place.display());
        };
        refused += u64::from(torn.is_some());
        replays += u64::from(steps > 0);
    }
    println!("{} damaged recordings: {refused} are refused somewhere, of {replays} something is replayed", seeds());
    assert!(refused > seeds() / 10 && replays > seeds() / 2, "the damage is not what it should be");
}
