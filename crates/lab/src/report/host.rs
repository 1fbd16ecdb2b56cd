//! The computer on which something was measured.

use std::fs::read_to_string;

/// A computer.
#[derive(Clone, Debug)]
pub struct Host {
    /// The model of its processor.
    pub model: String,
    /// How many CPUs this process may use.
    pub cpus: usize,
    /// The kernel, and its release.
    pub kernel: String,
    /// Its memory, in bytes, if that is told.
    pub memory_bytes: Option<u64>,
}

impl Host {
    /// This one. What is not told is said to be unknown.
    pub fn this() -> Self {
        let read = |path: &str| read_to_string(path).unwrap_or_default();
        let unknown = |text: String| if text.is_empty() { "unknown".to_string() } else { text };
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kib = field(&meminfo, "MemTotal").and_then(|total| total.trim_end_matches("kB").trim().parse::<u64>().ok());
        let kernel = format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim());
        Self {
            model: unknown(field(&cpuinfo, "model name").unwrap_or_default().to_string()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_string(),
            memory_bytes: kib.map(|kib| kib * 1024),
        }
    }
}

/// What stands after `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2: GHz\nMemTotal:   123 kB\n";
        assert_eq!(super::field(text, "model name"), Some("Some CPU @ 2: GHz"));
        assert_eq!(super::field(text, "MemTotal"), Some("123 kB"));
        assert_eq!(super::field(text, "model"), None);
    }
}
