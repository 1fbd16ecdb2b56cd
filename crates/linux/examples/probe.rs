//! Says what this process may do: as text, or with `--json` for machines. Its exit status is 1 where memory cannot be paged.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    let report = spile_linux::probe();
    if std::env::args().any(|argument| argument == "--json") {
        println!("{:#}", json(&report));
    } else {
        println!("{report}");
    }
    std::process::ExitCode::from(u8::from(report.engine.is_err()))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn json(report: &spile_linux::Report) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    fn came<T, E: std::fmt::Display>(of: &Result<T, E>) -> Value {
        json!({ "works": of.is_ok(), "why_not": of.as_ref().err().map(E::to_string) })
    }
    let doors: Map<_, _> = report.doors.iter().map(|(door, opened)| (door.name().into(), came(opened))).collect();
    let tried: Map<_, _> = report.tried.iter().map(|(ability, result)| (ability.name().into(), came(result))).collect();
    json!({
        "kernel": report.kernel,
        "rights": {
            "vm.unprivileged_userfaultfd": report.rights.sysctl,
            "CAP_SYS_PTRACE": report.rights.ptrace,
            "seccomp": report.rights.seccomp,
        },
        "doors": doors,
        "features": report.features.names().map(|(name, _)| name).collect::<Vec<_>>(),
        "tried": tried,
        "door": report.door().map(spile_linux::Door::name),
        "engine": report.engine.as_ref().ok().map(ToString::to_string),
        "refused": report.engine.as_ref().err().map(ToString::to_string),
    })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this is not Linux on x86-64");
}
