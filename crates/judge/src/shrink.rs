//! Makes a sequence shorter.
//!
//! **Guarantee.** What is returned still fails, and was tried.
//!
//! **Mechanism.** Delta debugging: leave out parts of a sequence, first large ones, then smaller ones, and keep what still
//! fails. Bounded by tries, since each one runs both sides.

/// The shortest sequence found for which `fails` holds, with at most `tries` tries.
pub fn shrink<T: Clone>(sequence: &[T], tries: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = sequence.to_vec();
    let mut part = kept.len().div_ceil(2);
    let mut left = tries;
    while part > 0 && left > 0 {
        let before = kept.len();
        let mut at = 0;
        while at < kept.len() && left > 0 {
            let end = (at + part).min(kept.len());
            let shorter = [&kept[..at], &kept[end..]].concat();
            left -= 1;
            if fails(&shorter) {
                kept = shorter;
            } else {
                at = end;
            }
        }
        // At the finest, go on for as long as something was left out.
        part = if part > 1 { part / 2 } else { usize::from(kept.len() < before) };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_matters_is_kept() {
        let sequence: Vec<u32> = (0..100).collect();
        let kept = shrink(&sequence, 1000, |part| part.contains(&17) && part.contains(&80));
        assert_eq!(kept, [17, 80]);
    }

    #[test]
    fn tries_are_bounded() {
        let mut tried = 0;
        shrink(&[0; 64], 10, |_| {
            tried += 1;
            false
        });
        assert_eq!(tried, 10);
    }
}
