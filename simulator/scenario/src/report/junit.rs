//! The report for CI: JUnit, a suite a scenario and a case a step. No times: they would differ from run to run.

use super::{Report, ScenarioReport, Status, StepReport};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

impl Report {
    /// The XML, with a newline at its end.
    pub fn to_junit(&self) -> String {
        let mut junit = Junit::new("skep");
        for scenario in &self.scenarios {
            junit.add_test_suite(suite(scenario));
        }
        let mut text = junit.to_string().expect("a report is written to memory");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

fn suite(scenario: &ScenarioReport) -> TestSuite {
    let mut suite = TestSuite::new(scenario.name.clone());
    suite.add_property(("seed", scenario.seed.to_string().as_str()));
    for (object, sha256) in &scenario.objects {
        suite.add_property((format!("object.{object}.sha256").as_str(), sha256.as_str()));
    }
    for step in &scenario.steps {
        suite.add_test_case(case(step));
    }
    if !scenario.errors.is_empty() {
        let text = scenario.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(text).set_type(scenario.status.name());
        suite.add_test_case(TestCase::new("set-up", status));
    }
    suite
}

fn case(step: &StepReport) -> TestCase {
    let status = match (step.status, &step.skip) {
        (Status::Passed, _) => TestCaseStatus::success(),
        (Status::Skipped, why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why.clone().unwrap_or_default());
            status
        }
        (_, why) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let lines = step.failures.iter().map(|f| {
                let m = &f.mismatch;
                format!("{}:{}: {}: expected {}, got {}", f.file, f.line, m.field, m.expected, m.got)
            });
            let text =
                lines.chain(why.iter().map(|w| format!("skipped: {w}"))).collect::<Vec<_>>().join("\n");
            status.set_message(text).set_type("expectation");
            status
        }
    };
    TestCase::new(format!("{} {}", step.number, step.title), status)
}
