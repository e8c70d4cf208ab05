//! `skep run`: scenarios one after the other, each on a World of its own.

use crate::args::{On, Output, RunArgs};
use crate::{diagnostics, terminal, worlds};
use anstyle::Style;
use skep_scenario::compare::{self, Observation};
use skep_scenario::plan::{Plan, PlanOptions};
use skep_scenario::report::{Report, ScenarioReport, StepReport, TextStyle, status_style};
use skep_scenario::run::{Progress, RunOptions, run as carry_out};
use skep_scenario::{Diagnostic, Evidence, SetupError, trace};
use std::io::Write;

/// Exit status for input that is wrong.
const INPUT: u8 = 2;

/// Runs all scenarios. Returns the exit status.
pub(crate) fn run(args: &RunArgs) -> u8 {
    if args.pcap.is_some() && args.scenarios.len() > 1 {
        let help = "run one scenario at a time with --pcap";
        diagnostics::print(&Diagnostic::new("a capture holds one scenario").help(help));
        return INPUT;
    }
    // Every plan is made before anything runs: a mistake in the last scenario is told at once.
    let options = PlanOptions { seed: args.seed, ignore_kinds: args.ignore_kind.clone() };
    let mut plans = Vec::new();
    let mut wrong = false;
    for path in &args.scenarios {
        match Plan::load(path, &options) {
            Ok(plan) => plans.push(plan),
            Err(errors) => {
                diagnostics::print_all(&errors);
                wrong = true;
            }
        }
    }
    if wrong {
        return INPUT;
    }
    let mut reports = Vec::new();
    let mut differences = 0;
    for plan in &plans {
        let mut seen = Vec::new();
        for on in &args.on {
            match one(args, *on, plan) {
                Ok((report, observed)) => {
                    reports.push(report);
                    seen.push((*on, observed));
                }
                Err(error) => return complain(&error),
            }
        }
        if let [first, rest @ ..] = seen.as_slice() {
            differences += rest.iter().map(|other| compared(args, plan, first, other)).sum::<usize>();
        }
    }
    let report = Report::new(reports);
    finish(args, &report);
    report.exit_status().max(u8::from(differences > 0))
}

/// Shows two Worlds side by side, a line a flow, and in which values they differ. Returns in how many.
fn compared(
    args: &RunArgs,
    plan: &Plan,
    left: &(On, Vec<Observation>),
    right: &(On, Vec<Observation>),
) -> usize {
    let (a, b) = (left.0.name(), right.0.name());
    let mut count = 0;
    let mut text = format!("{}: {a} | {b}\n", plan.name);
    for (step, (left, right)) in plan.steps.iter().zip(left.1.iter().zip(&right.1)) {
        let Some((one, other)) = left.summary().zip(right.summary()) else { continue };
        let found = compare::differences(left, right, compare::is_counted(step));
        let sign = if found.is_empty() { "=" } else { "!=" };
        text += &format!("  {sign:<2} step {} {}: {one} | {other}\n", left.report.number, left.report.title);
        for difference in &found {
            text += &format!("     {}: {} | {}\n", difference.field, difference.left, difference.right);
        }
        count += found.len();
    }
    if args.output == Output::Text {
        write(&text);
    } else {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    count
}

fn one(args: &RunArgs, on: On, plan: &Plan) -> Result<(ScenarioReport, Vec<Observation>), SetupError> {
    let mut place = worlds::open(on, args)?;
    let mut printer = Printer::new(args);
    let options = RunOptions { no_skip: args.no_skip };
    let report = carry_out(plan, place.world(), options, &mut printer);
    place.write_capture().map_err(|e| {
        let path = args.pcap.clone().unwrap_or_default();
        SetupError::input(
            Diagnostic::new(format!("cannot be written: {e}")).in_file(path).help("choose another --pcap"),
        )
    })?;
    diagnostics::print_all(&report.errors);
    if report.errors.is_empty() {
        place.tell_engines(args.engine);
    }
    Ok((report, printer.observed))
}

fn complain(error: &SetupError) -> u8 {
    match error {
        SetupError::Input(all) => diagnostics::print_all(all),
        other => diagnostics::print(&Diagnostic::new(other.to_string())),
    }
    error.exit_status()
}

fn finish(args: &RunArgs, report: &Report) {
    let text = match args.output {
        Output::Text => report.summary_text(style(args)),
        Output::Json => report.to_json(),
        Output::Junit => report.to_junit(),
    };
    write(&text);
}

fn style(args: &RunArgs) -> TextStyle {
    TextStyle { width: terminal::width(args.width), color: terminal::color(&std::io::stdout()) }
}

/// Writes to stdout. A closed pipe (`skep run ... | head`) is not an error.
fn write(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints traces and results while they come; with another output than text, traces go to stderr.
struct Printer {
    style: TextStyle,
    trace: bool,
    text: bool,
    /// Up to when packets were shown.
    shown_ns: u64,
    /// What each step was seen to do.
    observed: Vec<Observation>,
}

impl Printer {
    fn new(args: &RunArgs) -> Self {
        let text = args.output == Output::Text;
        let mut style = style(args);
        if !text {
            style.color = terminal::color(&std::io::stderr());
        }
        Self { style, trace: args.trace, text, shown_ns: 0, observed: Vec::new() }
    }

    fn show(&self, text: &str) {
        if self.text {
            write(text);
        } else {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

impl Progress for Printer {
    fn scenario(&mut self, plan: &Plan) {
        if self.trace {
            let title = match plan.description.as_str() {
                "" => plan.name.clone(),
                description => format!("{}: {description}", plan.name),
            };
            self.show(&format!("{}\n", self.style.paint(Style::new().bold(), &title)));
        }
        for (kind, count) in &plan.read_past {
            let mut err = std::io::stderr().lock();
            let why = skep_manifest::note(kind).unwrap_or("without effect on networking");
            let _ = writeln!(err, "note: {count} {kind} read past: {why}");
        }
    }

    fn step(&mut self, step: &StepReport, evidence: Option<&Evidence>) {
        self.observed.push(Observation { report: step.clone(), evidence: evidence.cloned() });
        if !self.trace {
            return;
        }
        let word = self.style.paint(status_style(step.status), step.status.name());
        let mut text = format!("\nstep {}: {} [{word}]\n", step.number, step.title);
        if let Some(evidence) = evidence {
            text += &trace::render(evidence, self.shown_ns, self.style);
            self.shown_ns = self.shown_ns.max(trace::end_ns(evidence));
            text += &trace::conntrack(&step.conntrack, self.style);
        }
        self.show(&text);
    }

    fn done(&mut self, report: &ScenarioReport) {
        if self.text {
            let gap = if self.trace { "\n" } else { "" };
            write(&format!("{gap}{}", report.to_text(self.style)));
        }
    }
}
