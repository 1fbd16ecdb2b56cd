//! A table of 1 TiB, of which only what is looked up is ever computed: the smallest prime factor of each number below 2^38.
//!
//! `cargo run --release -p spile-linux --example table -- [NUMBER..]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use clap::Parser;
    use spile_linux::backing::{Generated, Page};
    use spile_linux::{PAGE, Pager};
    use std::error::Error;
    use std::io;

    /// Factors numbers by a table of smallest prime factors.
    #[derive(Parser)]
    struct Arguments {
        /// Numbers from 1 on, below 2^38.
        #[arg(default_values_t = [1_001, 123_456_789_012, 274_876_858_367, 77_777_777_777], value_parser = clap::value_parser!(u64).range(1..COUNT))]
        numbers: Vec<u64>,
    }

    /// How many numbers the table has: 4 bytes for each.
    const COUNT: u64 = 1 << 38;

    /// The primes below 2^19, one of which divides each number of the table that is no prime.
    fn primes() -> Vec<u32> {
        let mut is_prime = vec![true; 1 << 19];
        (2..1 << 10).for_each(|n| (n * n..is_prime.len()).step_by(n).for_each(|multiple| is_prime[multiple] = false));
        (2..1 << 19).filter(|n| is_prime[*n as usize]).collect()
    }

    /// A page of the table, by a sieve: 0 where there is no smaller factor.
    fn sieve(primes: &[u32], first: u64, page: &mut Page) -> io::Result<()> {
        let entries = PAGE / 4;
        let mut factors = [0; PAGE as usize / 4];
        for &prime in primes.iter().rev().filter(|prime| u64::from(**prime).pow(2) < first + entries) {
            let start = first.next_multiple_of(prime.into()).max(u64::from(prime).pow(2)) - first;
            (start..entries).step_by(prime as usize).for_each(|entry| factors[entry as usize] = prime);
        }
        page.as_chunks_mut().0.iter_mut().zip(factors).for_each(|(bytes, factor)| *bytes = factor.to_ne_bytes());
        Ok(())
    }

    /// Its prime factors, of which the table has the smallest.
    fn factors(table: &[u32], mut number: u64) -> Vec<u64> {
        let mut factors = Vec::new();
        while table[number as usize] != 0 {
            factors.push(u64::from(table[number as usize]));
            number /= u64::from(table[number as usize]);
        }
        factors.push(number);
        factors
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let Arguments { numbers } = Arguments::parse();
        let pager = match Pager::builder().budget(1 << 20).build() {
            Err(refused) if refused.is_refused() => {
                println!("skipped: {refused}");
                return Ok(());
            }
            other => other?,
        };
        let primes = primes();
        // SAFETY: (1) a sieve finds the same each time.
        let generated = unsafe { Generated::new(move |at, page: &mut Page| sieve(&primes, at / 4, page)) };
        let table = pager.region(generated, COUNT * 4).around(1).map()?;
        for number in numbers {
            let factors = factors(table.as_slice(), number);
            let text: Vec<_> = factors.iter().map(u64::to_string).collect();
            println!("{number} = {}", text.join(" * "));
            assert_eq!(factors.iter().product::<u64>(), number);
            let is_prime = |n: u64| (2..).take_while(|factor| factor * factor <= n).all(|factor| !n.is_multiple_of(factor));
            assert!(number == 1 || factors.iter().all(|factor| is_prime(*factor)));
        }
        let status = table.status();
        println!("of {} GiB {} KiB were computed; faults: {}", status.len >> 30, status.filled >> 10, status.faults);
        Ok(())
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this is not Linux on x86-64");
}
