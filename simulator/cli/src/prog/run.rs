//! `skep prog run`: a program over a packet.

use super::args::{Engine, Output, RunArgs};
use super::state::{self, State, hex};
use super::{Done, print, read, write};
use crate::diagnostics;
use serde_json::{Value, json};
use skep_scenario::Diagnostic;
use skep_vm::{
    Environment, Kernel, KernelConfig, LoadSpec, Loaded, MapId, Object, ProgramKind, RedirectKind, TestError,
    TestInput, TestOutput,
};
use std::path::Path;

/// Exit status of a program that misbehaved.
pub(super) const FAULT: u8 = 1;

/// What a program sees of the world, and what it told it.
pub(super) struct World {
    now_ns: u64,
    random: u64,
    cpu: u32,
    events: Vec<(MapId, Vec<u8>)>,
    texts: Vec<String>,
}

impl Default for World {
    fn default() -> Self {
        Self { now_ns: 0, random: 1, cpu: 0, events: Vec::new(), texts: Vec::new() }
    }
}

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn random_u32(&mut self) -> u32 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }

    fn cpu(&mut self) -> u32 {
        self.cpu
    }

    fn emit(&mut self, map: MapId, event: &[u8], captured: &[u8]) {
        self.events.push((map, [event, captured].concat()));
    }

    fn trace(&mut self, text: &str) {
        self.texts.push(text.to_owned());
    }
}

pub(super) fn run(args: &RunArgs) -> Done {
    let mut session = Session::open(args, args.engine)?;
    let Some(output) = session.execute(args)? else { return Ok(FAULT) };
    if let Some(path) = &args.data_out {
        write(path, &output.data)?;
    }
    if let Some(path) = &args.ctx_out {
        write(path, &output.context)?;
    }
    if let Some(path) = &args.map_dump {
        let state = state::dump(&session.kernel, &session.loaded, &session.object);
        write(path, format!("{state:#}\n").as_bytes())?;
    }
    let result = result(args, &session, &output);
    match args.output {
        Output::Text => print(&text(&result)),
        Output::Json => print(&format!("{result:#}\n")),
    }
    Ok(0)
}

/// A loaded object, and its program's world.
pub(super) struct Session {
    pub(super) object: Object,
    pub(super) name: String,
    pub(super) kernel: Kernel,
    pub(super) loaded: Loaded,
    world: World,
}

impl Session {
    /// Reads, loads and fills what the flags say.
    pub(super) fn open(args: &RunArgs, engine: Engine) -> Result<Self, Diagnostic> {
        let (mut object, verified) = args.object.parse_known()?;
        let name = args.object.program(&object, args.program.as_deref())?.to_owned();
        let of_object = |e: skep_vm::Error| Diagnostic::new(e.to_string()).in_file(&args.object.object);
        if let Some(kind) = args.r#type {
            object = object.with_kind(&name, ProgramKind::from(kind)).map_err(of_object)?;
        }
        if args.cpu >= args.cpus {
            let text = format!("there is no CPU {} among {}", args.cpu, args.cpus);
            return Err(Diagnostic::new(text).help("CPUs count from 0; --cpus says how many there are"));
        }
        let states = args.map_load.iter().map(|path| load_state(path)).collect::<Result<Vec<_>, _>>()?;
        // As another kind no kernel has seen it.
        let verified = verified && args.r#type.is_none();
        let mut spec = LoadSpec { verified, ..LoadSpec::default() };
        for (_, state) in &states {
            spec.globals.extend(state.globals.clone());
        }
        let engine = engine.into();
        let mut kernel = Kernel::new(&KernelConfig { cpus: args.cpus, engine, ..KernelConfig::default() });
        // Other programs are loaded beside it where they can be: tail calls reach them by name.
        let object = runnable(&object, &name).map_err(of_object)?;
        let loaded = kernel.load(&object, &spec).map_err(of_object)?;
        for (path, state) in &states {
            state.fill(&mut kernel, &loaded).map_err(|what| Diagnostic::new(what).in_file(path))?;
        }
        let world = World { now_ns: args.now, random: args.seed, cpu: args.cpu, ..World::default() };
        Ok(Self { object, name, kernel, loaded, world })
    }

    /// Runs the program; `None` if it misbehaved, which is then told.
    pub(super) fn execute(&mut self, args: &RunArgs) -> Result<Option<TestOutput>, Diagnostic> {
        let data = read(&args.data_in)?;
        let context = args.ctx_in.as_deref().map(read).transpose()?.unwrap_or_default();
        let input = TestInput { data: &data, context: &context, repeat: args.repeat };
        match self.kernel.test_run(self.loaded.programs[&self.name], &input, &mut self.world) {
            Ok(output) => Ok(Some(output)),
            Err(TestError::Input(what)) => Err(Diagnostic::new(what).in_file(&args.data_in)),
            Err(TestError::Fault(fault)) => {
                diagnostics::print(&misbehaved(args, &self.object, &fault));
                Ok(None)
            }
        }
    }
}

fn load_state(path: &Path) -> Result<(&Path, State), Diagnostic> {
    let wrong =
        |what: String| Diagnostic::new(what).in_file(path).help("`skep prog run --help` shows its form");
    let text = String::from_utf8(read(path)?).map_err(|_| wrong("it is no text".into()))?;
    Ok((path, State::parse(&text).map_err(wrong)?))
}

/// The program, and the others that can be executed here.
fn runnable(object: &Object, name: &str) -> Result<Object, skep_vm::Error> {
    let can = |other: &&str| *other == name || object.listing(other).is_some_and(|l| l.illegal.is_none());
    object.only(&object.programs().filter(can).collect::<Vec<_>>())
}

/// A fault with its source line, where that is known.
fn misbehaved(args: &RunArgs, object: &Object, fault: &skep_vm::Fault) -> Diagnostic {
    let diagnostic = Diagnostic::new(fault.to_string()).in_file(&args.object.object);
    let line = fault.instruction.and_then(|at| object.source_line(&fault.program, at));
    let help = match line {
        Some(line) => format!("{}:{}: {}", line.file, line.line, line.text),
        None => format!("`skep prog dump --program {}` shows its instructions", fault.program),
    };
    diagnostic.help(help)
}

/// What the number means to the kernel.
fn verdict(kind: Option<ProgramKind>, value: u64) -> Option<&'static str> {
    const TC: [&str; 9] = [
        "TC_ACT_OK",
        "TC_ACT_RECLASSIFY",
        "TC_ACT_SHOT",
        "TC_ACT_PIPE",
        "TC_ACT_STOLEN",
        "TC_ACT_QUEUED",
        "TC_ACT_REPEAT",
        "TC_ACT_REDIRECT",
        "TC_ACT_TRAP",
    ];
    const XDP: [&str; 5] = ["XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"];
    match (kind?, value) {
        (ProgramKind::SchedClassifier | ProgramKind::SchedAction, 0xffff_ffff) => Some("TC_ACT_UNSPEC"),
        (ProgramKind::SchedClassifier | ProgramKind::SchedAction, n) => TC.get(n as usize).copied(),
        (ProgramKind::Xdp, n) => XDP.get(n as usize).copied(),
        _ => None,
    }
}

fn map_name(loaded: &Loaded, id: MapId) -> String {
    let found = loaded.maps.iter().find(|(_, other)| **other == id);
    found.map_or_else(|| format!("#{}", id.number()), |(name, _)| name.clone())
}

fn result(args: &RunArgs, session: &Session, output: &TestOutput) -> Value {
    let Session { kernel, loaded, world, .. } = session;
    let kind = session.object.kind(&session.name);
    let run = output.run.as_ref();
    let name = |id| kernel.program_name(id).unwrap_or("?");
    let redirect = run.and_then(|r| r.redirect).map(|r| {
        let (by, next_hop) = match r.kind {
            RedirectKind::Device => ("bpf_redirect", None),
            RedirectKind::Peer => ("bpf_redirect_peer", None),
            RedirectKind::Neighbour { next_hop } => ("bpf_redirect_neigh", next_hop),
            RedirectKind::Map { .. } => ("bpf_redirect_map", None),
            RedirectKind::Socket(_) => ("a redirect to a socket", None),
        };
        let next_hop = next_hop.map(|ip| std::net::Ipv4Addr::from(ip).to_string());
        json!({"by": by, "ifindex": r.ifindex, "flags": r.flags, "next_hop": next_hop})
    });
    let tail_calls: Vec<Value> = run.map(|r| &r.tail_calls[..]).unwrap_or_default().iter().map(|call| {
        json!({"map": map_name(loaded, call.map), "index": call.index, "program": call.target.map(name)})
    }).collect();
    let event = |(map, bytes): &(MapId, Vec<u8>)| json!({"map": map_name(loaded, *map), "data": hex(bytes)});
    json!({
        "return_value": output.return_value,
        "verdict": verdict(kind, output.return_value),
        "engine": kernel.engine(loaded.programs[&session.name]).map(skep_vm::EngineKind::name),
        "repeat": args.repeat,
        "redirect": redirect,
        "chain": run.map(|r| r.chain.iter().map(|id| name(*id)).collect::<Vec<_>>()),
        "tail_calls": tail_calls,
        "stats": {
            "instructions": output.total.instructions,
            "helper_calls": output.total.helper_calls,
            "map_lookups": output.total.map_lookups,
        },
        "events": world.events.iter().map(event).collect::<Vec<_>>(),
        "trace": world.texts,
        "data_out": hex(&output.data),
        "ctx_out": hex(&output.context),
    })
}

fn text(result: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = format!("return value: {}", result["return_value"]);
    if let Some(verdict) = result["verdict"].as_str() {
        out += &format!(" ({verdict})");
    }
    let repeat = result["repeat"].as_u64().unwrap_or(1);
    let stats = &result["stats"];
    out += &format!(
        "\n{repeat} run{} by {}, {} instructions, {} helper calls, {} map look-ups\n",
        if repeat == 1 { "" } else { "s together" },
        word(&result["engine"]),
        stats["instructions"],
        stats["helper_calls"],
        stats["map_lookups"]
    );
    let list = |key: &str| result[key].as_array().cloned().unwrap_or_default();
    let chain: Vec<String> = list("chain").iter().map(word).collect();
    if chain.len() > 1 {
        out += &format!("chain: {}\n", chain.join(" -> "));
    }
    for call in list("tail_calls").iter().filter(|c| c["program"].is_null()) {
        out += &format!("tail call missed: {}[{}] is empty\n", word(&call["map"]), call["index"]);
    }
    if let Some(redirect) = result["redirect"].as_object() {
        out += &format!(
            "redirect: {} to ifindex {}, flags {}",
            word(&redirect["by"]),
            redirect["ifindex"],
            redirect["flags"]
        );
        if let Some(next_hop) = redirect["next_hop"].as_str() {
            out += &format!(", next hop {next_hop}");
        }
        out.push('\n');
    }
    for event in list("events") {
        out += &format!("event: {} {}\n", word(&event["map"]), word(&event["data"]));
    }
    for line in list("trace") {
        out += &format!("trace: {}\n", word(&line).trim_end());
    }
    out
}
