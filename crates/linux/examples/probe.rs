//! Says what this process may do.

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    match spile_linux::probe() {
        Ok(capabilities) => println!("{capabilities}"),
        Err(refused) => {
            eprintln!("{refused}");
            std::process::exit(1);
        }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("this is not Linux on x86-64");
}
