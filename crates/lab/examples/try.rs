use spile_lab::concurrent::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let source = spile_lab::source::open(args[1].as_ref()).unwrap();
    let designs = spile_lab::design::chosen(&[args[2].clone()]).unwrap();
    let cpus: usize = args[3].parse().unwrap();
    let limit: usize = args.get(5).map_or(usize::MAX, |l| l.parse().unwrap());
    let steps = &source.steps[..source.steps.len().min(limit)];
    let t = std::time::Instant::now();
    let f = if std::env::var("FREE").is_ok() { freely(steps) } else { as_recorded(steps, &mut |_| ()) };
    println!("footprints {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let plan = Plan::new(steps, &f, cpus, std::env::var("W").map_or(WINDOW, |w| w.parse().unwrap()));
    println!("plan {:?}", t.elapsed());
    for d in designs {
        let t = std::time::Instant::now();
        if args[4] == "os" {
            let r = (d.threaded)(steps, &plan, &|_| ());
            println!("{} {:?} {:?} agrees {}", d.name, t.elapsed(), r, r.agrees());
        } else {
            let r = (d.simulated)(steps, &plan, args[4].parse().unwrap(), &|_| ());
            println!("{} {:?} agrees {} accesses {}", d.name, t.elapsed(), r.agrees(), r.accesses);
            if let Some(f) = &r.failure {
                println!("{f}");
            }
            println!("{:?}", r.report);
            println!(
                "faults {} {:?}",
                r.faults_cost.count,
                r.faults_cost.parts.map(|c| format!(
                    "{:.2}/{:.2}",
                    c.shared_writes as f64 / r.faults_cost.count as f64,
                    c.transfers as f64 / r.faults_cost.count as f64
                ))
            );
            println!(
                "mmap {} {:?}",
                r.mmap_cost.count,
                r.mmap_cost.parts.map(|c| format!(
                    "{:.2}/{:.2}",
                    c.shared_writes as f64 / r.mmap_cost.count as f64,
                    c.transfers as f64 / r.mmap_cost.count as f64
                ))
            );
        }
    }
}
