//! Numbers on axes and beside marks.

use crate::output::grouped;

/// Round numbers from zero on, about five, the last not below `max`.
pub fn ticks(max: f64) -> Vec<f64> {
    if max <= 0.0 || !max.is_finite() {
        return vec![0.0, 1.0];
    }
    let power = 10f64.powf((max / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| max / step <= 5.0).unwrap_or(max);
    (0..=(max / step - 1e-9).ceil() as usize).map(|count| count as f64 * step).collect()
}

/// A number with three figures that count, or all before the point.
pub fn told(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if value.abs() >= 100.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", grouped(value.abs().round() as u64));
    }
    let places = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// The same, short enough for an axis: `25 k`.
pub fn short(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e4.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{unit}", told(value / scale))
}

/// A time, in the unit that fits `end_ns`.
pub fn time(ns: u64, end_ns: u64) -> (f64, &'static str) {
    let (scale, unit) = match end_ns {
        1_000_000_000.. => (1e9, "s"),
        1_000_000.. => (1e6, "ms"),
        _ => (1e3, "µs"),
    };
    (ns as f64 / scale, unit)
}

/// A size in the largest unit of which there is one.
pub fn bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.into_iter().find(|(unit, _)| bytes >= *unit);
    fits.map_or(format!("{bytes} B"), |(unit, name)| format!("{} {name}", told(bytes as f64 / unit as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_above_what_they_show() {
        assert_eq!(ticks(4.2), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(5.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(26_000.0).last(), Some(&30_000.0));
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        for max in [1e-6, 0.3, 7.0, 99.9, 123_456.0, 3e12] {
            let ticks = ticks(max);
            assert!(ticks.len() <= 6 && *ticks.last().unwrap() >= max && ticks[ticks.len() - 2] < max, "{max}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.1234, 2.0, 36.21, 99.96, 123_456.7].map(told), ["0", "0.123", "2", "36.2", "100", "123,457"]);
        assert_eq!([500.0, 25_000.0, 2.5e6, 3e9].map(short), ["500", "25 k", "2.5 M", "3 G"]);
        assert_eq!([12, 4096, 3 << 20, 1 << 40].map(bytes), ["12 B", "4 KiB", "3 MiB", "1 TiB"]);
    }
}
