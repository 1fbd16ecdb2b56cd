//! Building at once, copying, and the safe map.
#![cfg(not(loom))]

use spile_maple::{EmptySpan, Heap, RangeMap, RangeTree, Span, Token, Unbuilt};
use spile_rcu::{Global, Rcu};

fn ranges(n: u64) -> impl Iterator<Item = (Span, Token)> {
    (0..n).map(|i| (Span::with_len(i * 0x5000 + 0x1000, 0x3000).unwrap(), Token::new(i as usize).unwrap()))
}

#[test]
fn built_from_sorted_ranges() {
    // Around the fill of a leaf and of an inner node, small and large; under Miri nodes are small.
    let sizes: &[u64] = if cfg!(miri) { &[0, 1, 4, 5, 17, 70] } else { &[0, 1, 26, 27, 28, 54, 700, 40_000] };
    for &n in sizes {
        let mut tree = RangeTree::from_sorted(ranges(n)).unwrap();
        let section = Global.read();
        assert!(tree.iter(&section, Span::ALL).eq(ranges(n)));
        drop(section);
        let mut writer = tree.write_mut();
        writer.validate().unwrap();
        assert_eq!(writer.stats().ranges as u64, n);
    }
}

#[test]
fn unsorted_ranges_are_refused() {
    let (a, b) = (Span::with_len(0x1000, 0x1000).unwrap(), Span::with_len(0x1fff, 1).unwrap());
    let token = Token::new(0).unwrap();
    let refused = RangeTree::from_sorted([(a, token), (b, token)]);
    assert_eq!(refused.err(), Some(Unbuilt::Unsorted(b)));
}

#[test]
fn duplicated_with_a_filter() {
    let n = if cfg!(miri) { 60 } else { 5_000 };
    let mut tree = RangeTree::from_sorted(ranges(n)).unwrap();
    let mut writer = tree.write_mut();
    writer.store_reserved(Span::with_len(0x4000, 0x800).unwrap()).map(drop).unwrap();
    let even = |token: Token| token.get().is_multiple_of(2);
    let mut copy = writer.duplicate(Global, Heap, |_, token| even(token).then_some(token)).unwrap();
    copy.write_mut().validate().unwrap();
    let section = Global.read();
    assert!(copy.iter(&section, Span::ALL).eq(ranges(n).filter(|(_, token)| even(*token))));
    assert!(copy.is_free(&section, Span::with_len(0x4000, 0x800).unwrap()), "reserved ranges are not copied");
}

#[test]
fn a_map_shared_by_threads() {
    let map = RangeMap::new();
    let rounds = if cfg!(miri) { 20 } else { 2_000 };
    map.insert(0..1_000_000, 0_u64).unwrap();
    std::thread::scope(|scope| {
        for t in 1..3 {
            let map = &map;
            scope.spawn(move || {
                for i in 0..rounds {
                    map.insert(i * 100 + t..i * 100 + t + 50, t).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for i in 0..rounds * 4 {
                assert!(map.read().contains(i * 25), "a key that was never removed is never missing");
            }
        });
    });
    let section = map.read();
    assert_eq!(section.gaps(Span::new(0, 1_000_099).unwrap()).collect::<Vec<_>>(), [Span::new(1_000_000, 1_000_099).unwrap()]);
    let mut next = 0;
    for (span, _) in section.iter() {
        assert_eq!(span.first(), next, "ranges tile what was inserted");
        next = span.last() + 1;
    }
}

#[test]
fn empty_and_inverted_ranges_change_nothing() {
    let map = RangeMap::new();
    #[allow(clippy::reversed_empty_ranges)]
    for range in [5..5, 7..3] {
        assert_eq!(map.insert(range.clone(), 1), Err(EmptySpan));
        assert_eq!(map.remove(range), Err(EmptySpan));
    }
    map.insert(0..=u64::MAX, 1).unwrap();
    assert_eq!(map.remove(10..20), Ok(0));
    assert_eq!(map.read().gaps(Span::ALL).collect::<Vec<_>>(), [Span::new(10, 19).unwrap()]);
    assert_eq!(map.remove(0..=u64::MAX), Ok(2));
    assert_eq!(map.read().iter().count(), 0);
}
