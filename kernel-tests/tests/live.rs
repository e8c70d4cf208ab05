//! Every folder of scenarios/ on the running kernel, by the simulator's judge; and that nothing is left afterwards, also
//! when the process is killed in the middle.

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(status) = skep_live::live::agent_process() {
        return status;
    }
    let mut arguments = Arguments::from_args();
    // What is left over can be told only while nobody else is at work, and a busy machine is a slow network.
    arguments.test_threads = Some(1);
    #[cfg(target_os = "linux")]
    if let Some(folder) = std::env::var_os(kernel::CHILD) {
        return kernel::child(std::path::Path::new(&folder));
    }
    let mut trials: Vec<Trial> = Vec::new();
    match kernel::probe() {
        Ok(()) => trials.extend(kernel::trials()),
        Err(capability) => println!("SKIP live-scenarios: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::{ExitCode, Failed, Trial};
    use skep_live::live::{AGENT_ARGUMENT, LiveWorld};
    use skep_scenario::plan::{Plan, PlanOptions};
    use skep_scenario::report::Status;
    use skep_scenario::run::{RunOptions, Silent, run};
    use std::collections::BTreeSet;
    use std::io::Read as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// Names the scenario that this process, a child of the test, runs until it is killed.
    pub(super) const CHILD: &str = "SKEP_LIVE_CHILD";
    /// How long the kernel may take to clear away what nobody holds any more.
    const CLEARED: Duration = Duration::from_secs(20);

    pub(super) fn probe() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    fn scenarios() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
    }

    pub(super) fn trials() -> Vec<Trial> {
        let mut folders: Vec<PathBuf> = std::fs::read_dir(scenarios())
            .expect("scenarios/ stands at the workspace's root")
            .map(|e| e.expect("a folder that can be listed").path())
            .filter(|p| p.join("scenario.yaml").exists())
            .collect();
        folders.sort();
        let mut trials: Vec<Trial> = folders
            .into_iter()
            .map(|folder| {
                let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                Trial::test(format!("live/{name}"), move || passes(&folder))
            })
            .collect();
        trials.push(Trial::test("live/a-leak-is-noticed", a_leak_is_noticed));
        trials.push(Trial::test("live/nothing-is-left", nothing_is_left));
        trials.push(Trial::test("live/nothing-is-left-after-sigkill", nothing_is_left_after_sigkill));
        trials
    }

    /// What a scenario left behind would be seen as.
    #[derive(PartialEq, Eq, Debug)]
    struct Traces {
        /// BPF links: each holds a program, a device and with it a namespace.
        links: BTreeSet<u32>,
        /// Network and mount namespaces of all threads of all processes.
        namespaces: BTreeSet<String>,
        mounts: String,
        devices: BTreeSet<String>,
        /// Processes that serve a node.
        agents: BTreeSet<String>,
    }

    fn traces() -> Result<Traces, Failed> {
        let list = |path: &str| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.flatten().map(|e| e.path()).collect()
        };
        let mut namespaces = BTreeSet::new();
        let mut agents = BTreeSet::new();
        for process in list("/proc") {
            let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            if line.contains(AGENT_ARGUMENT) {
                agents.insert(process.display().to_string());
            }
            for thread in list(&process.join("task").to_string_lossy()) {
                for kind in ["ns/net", "ns/mnt"] {
                    let name = std::fs::read_link(thread.join(kind)).ok();
                    namespaces.extend(name.map(|n| n.to_string_lossy().into_owned()));
                }
            }
        }
        let devices = list("/sys/class/net").iter().map(|p| p.display().to_string()).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let links = skep_agent_linux::link_ids()?.into_iter().collect();
        Ok(Traces { links, namespaces, mounts, devices, agents })
    }

    /// The kernel clears away behind one's back: until nothing is more than it was.
    fn cleared(before: &Traces, limit: Duration) -> Result<(), Failed> {
        let begun = Instant::now();
        loop {
            let now = traces()?;
            let links: Vec<_> = now.links.difference(&before.links).collect();
            let namespaces: Vec<_> = now.namespaces.difference(&before.namespaces).collect();
            let agents = now.agents.is_subset(&before.agents);
            let clear = links.is_empty() && namespaces.is_empty() && agents;
            if clear && now.mounts == before.mounts && now.devices == before.devices {
                return Ok(());
            }
            if begun.elapsed() > limit {
                return Err(format!("left: links {links:?}, namespaces {namespaces:?}, {now:?}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn passes(folder: &Path) -> Result<(), Failed> {
        let plan = Plan::load(folder, &PlanOptions::default()).map_err(|e| format!("{e:?}"))?;
        let mut world = LiveWorld::new(None).map_err(|e| e.to_string())?;
        let report = run(&plan, &mut world, RunOptions::default(), &mut Silent);
        let as_expected = matches!(report.status, Status::Passed | Status::Skipped);
        if as_expected { Ok(()) } else { Err(format!("{report:#?}").into()) }
    }

    /// The check itself: a program that stays attached in a namespace that stays is seen.
    fn a_leak_is_noticed() -> Result<(), Failed> {
        use skep_agent_linux::{Netlink, Netns, NewEnd, Spec, TcxHook, TcxLink, load};
        let before = traces()?;
        let netns = Netns::new()?;
        let leak = netns.within(|| -> Result<TcxLink, skep_agent_linux::Error> {
            let mut netlink = Netlink::open()?;
            let end = |name| NewEnd { name, mac: [2, 0, 0, 0, 0, name.len() as u8], mtu: 1500, netns: None };
            netlink.add_veth(&end("leak"), &end("other"))?;
            let object = skep_abi::program::Object::Overlay;
            let loaded = load(object.name(), skep_object::bytes(object), &Spec::default())?;
            let program = &loaded.programs["to_overlay"];
            TcxLink::attach(program, netlink.ifindex("leak")?, TcxHook::Egress)
        })??;
        let noticed = cleared(&before, Duration::from_millis(300));
        drop((leak, netns));
        if noticed.is_ok() {
            return Err("a program that stays attached went unnoticed".into());
        }
        cleared(&before, CLEARED)
    }

    fn nothing_is_left() -> Result<(), Failed> {
        let before = traces()?;
        passes(&scenarios().join("deny-mid-flow"))?;
        cleared(&before, CLEARED)
    }

    /// The cluster stands and a connection is open when its process is killed.
    fn nothing_is_left_after_sigkill() -> Result<(), Failed> {
        let before = traces()?;
        let mut child = Command::new(std::env::current_exe()?)
            .env(CHILD, scenarios().join("deny-mid-flow"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut told = [0; 1];
        let ready = child.stdout.take().expect("it was piped").read_exact(&mut told);
        let during = traces()?;
        child.kill()?;
        child.wait()?;
        ready.map_err(|e| format!("the child ended before its cluster stood: {e}"))?;
        if during.links == before.links || during.namespaces == before.namespaces {
            return Err("the check sees nothing of a cluster that stands".into());
        }
        if during.agents.difference(&before.agents).count() < 2 {
            return Err(format!("two nodes have two agents, each a process: {:?}", during.agents).into());
        }
        cleared(&before, CLEARED)
    }

    /// Opens a flow of the scenario, says so, and waits to be killed.
    pub(super) fn child(folder: &Path) -> ExitCode {
        use skep_scenario::World as _;
        use skep_scenario::plan::Action;

        let Ok(plan) = Plan::load(folder, &PlanOptions::default()) else { return ExitCode::FAILURE };
        let Ok(mut world) = LiveWorld::new(None) else { return ExitCode::FAILURE };
        if world.build(&plan.cluster).is_err() {
            return ExitCode::FAILURE;
        }
        for step in &plan.steps {
            if let Action::Start { name: Some(_), stimulus, until } = &step.action
                && world.start(stimulus, *until).is_ok()
            {
                print!("!");
                let _ = std::io::Write::flush(&mut std::io::stdout());
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        ExitCode::FAILURE
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    pub(super) fn probe() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn trials() -> Vec<super::Trial> {
        let _: fn() -> super::Failed = || "not Linux".into();
        Vec::new()
    }
}
