//! What the system says of this process. Only Linux says it; elsewhere these metrics are absent.

use super::metrics::{Alone, Metrics};

/// Ticks of `/proc/self/stat` a second: the same on every Linux that runs today.
const TICKS_PER_S: f64 = 100.0;

/// What `/proc/self` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, in seconds.
    pub cpu_s: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Memory mapped.
    pub virtual_bytes: u64,
    /// Open files.
    pub fds: u64,
    /// Most open files.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Seconds since 1970.
    pub started_s: f64,
}

/// Reads `/proc/self`; `None` where there is none.
pub fn read() -> Option<Process> {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).ok();
    let status = file("self/status")?;
    let stat = file("self/stat")?;
    // The second field, the name, may hold blanks; what follows its bracket does not.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |place: usize| fields.get(place)?.parse::<f64>().ok();
    let booted_s: f64 = file("stat")?.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(Process {
        cpu_s: (field(11)? + field(12)?) / TICKS_PER_S,
        resident_bytes: kilobytes(&status, "VmRSS:")?,
        virtual_bytes: kilobytes(&status, "VmSize:")?,
        fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        max_fds: max_fds(&file("self/limits")?)?,
        threads: number(&status, "Threads:")?,
        started_s: booted_s + field(19)? / TICKS_PER_S,
    })
}

/// Sets the metrics of the process to what is now.
pub fn refresh(metrics: &Metrics) {
    let Some(process) = read() else { return };
    let level = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let cpu = metrics.process_cpu.get_or_create_owned(&Alone {});
    cpu.inc_by((process.cpu_s - cpu.get()).max(0.0));
    metrics.process_memory.get_or_create(&Alone {}).set(level(process.resident_bytes));
    metrics.process_virtual.get_or_create(&Alone {}).set(level(process.virtual_bytes));
    metrics.process_fds.get_or_create(&Alone {}).set(level(process.fds));
    metrics.process_max_fds.get_or_create(&Alone {}).set(level(process.max_fds));
    metrics.process_threads.get_or_create(&Alone {}).set(level(process.threads));
    metrics.process_start.get_or_create(&Alone {}).set(process.started_s);
}

fn number(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    number(status, name).map(|kb| kb.saturating_mul(1_024))
}

fn max_fds(limits: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = rest.split_whitespace().next()?;
    // "unlimited" is no number.
    Some(soft.parse().unwrap_or(u64::MAX))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_process_sees_itself() {
        let before = read().expect("Linux has /proc");
        assert!(before.resident_bytes > 1 << 20 && before.resident_bytes < before.virtual_bytes);
        assert!(before.threads >= 1 && before.fds >= 3 && before.max_fds >= before.fds);
        let files: Vec<_> = (0..5).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(read().unwrap().fds >= before.fds + 5, "{files:?}");
        let now_s = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map(|since| since.as_secs_f64())
            .unwrap();
        assert!(before.started_s <= now_s + 2.0 && before.started_s > now_s - 86_400.0, "{before:?}");
    }
}
