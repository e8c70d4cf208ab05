//! Executes legal programs.
pub(crate) struct Program;
impl Program {
    pub(crate) fn name(&self) -> &str {
        ""
    }
}
