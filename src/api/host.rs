//! How busy the machine is: the reference router's `router_*_usage_percent`.

/// Percentages of the whole machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of all cores, since the sample before.
    pub cpu: f64,
    /// Of memory; what can be freed at once counts as free.
    pub memory: f64,
    /// Of the root file system.
    pub disk: f64,
}

/// The machine, sampled.
#[derive(Debug, Default)]
pub struct Host {
    busy: u64,
    total: u64,
    usage: Usage,
}

impl Host {
    /// Looks again; what cannot be read stays as it was.
    pub fn sample(&mut self) {
        if let Some((busy, total)) = read("/proc/stat").as_deref().and_then(cpu_times) {
            let since = (
                busy.saturating_sub(self.busy),
                total.saturating_sub(self.total),
            );
            self.usage.cpu = percent(since.0, since.1);
            (self.busy, self.total) = (busy, total);
        }
        if let Some((used, total)) = read("/proc/meminfo").as_deref().and_then(memory) {
            self.usage.memory = percent(used, total);
        }
        if let Ok(disk) = nix::sys::statvfs::statvfs("/") {
            let used = disk.blocks() - disk.blocks_free();
            // As df(1): what is reserved is not to be had.
            self.usage.disk = percent(used, used + disk.blocks_available());
        }
    }

    /// As last sampled.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[expect(clippy::cast_precision_loss, reason = "percentages")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// Ticks in which a core worked, and all ticks (proc_stat(5)).
fn cpu_times(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = (line.split_whitespace().take(8))
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let total: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((total - idle, total))
}

/// Kibibytes used, and all (proc_meminfo(5)).
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let value = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (total, available) = (value("MemTotal:")?, value("MemAvailable:")?);
    Some((total.saturating_sub(available), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_manual_has_them() {
        let stat = "cpu  10 0 20 60 10 0 0 0 5 5\ncpu0 1 2 3\n";
        assert_eq!(cpu_times(stat), Some((30, 100)));
        let meminfo = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:   400 kB\n";
        assert_eq!(memory(meminfo), Some((600, 1000)));
        assert_eq!((cpu_times("x"), memory("x")), (None, None));
        assert_eq!(percent(1, 0), 0.0);
    }

    #[test]
    fn this_machine_can_be_sampled() {
        let mut host = Host::default();
        host.sample();
        let Usage { cpu, memory, disk } = host.usage();
        for value in [cpu, memory, disk] {
            assert!((0.0..=100.0).contains(&value), "{value}");
        }
    }
}
