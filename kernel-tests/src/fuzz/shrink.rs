//! Makes a case smaller as long as it is still wrong.
//!
//! Knows what can be left out of a case. Does not know what "wrong" is: the caller says.

use crate::row::Row;

/// More attempts than this are not made.
const ATTEMPTS: usize = 3000;

/// The smallest case found that is still wrong.
pub fn shrink(row: &Row, mut is_wrong: impl FnMut(&Row) -> bool) -> Row {
    let mut best = row.clone();
    let mut attempts = 0;
    loop {
        let before = attempts;
        let mut changed = false;
        for smaller in candidates(&best) {
            attempts += 1;
            if attempts > ATTEMPTS {
                return best;
            }
            if is_wrong(&smaller) {
                best = smaller;
                changed = true;
                break;
            }
        }
        if !changed || attempts == before {
            return best;
        }
    }
}

/// Smaller cases, the boldest first.
fn candidates(row: &Row) -> Vec<Row> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Row)| {
        let mut smaller = row.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    let entries = row.state.0.len();
    let mut chunk = entries;
    while chunk > 0 {
        for at in (0..entries).step_by(chunk) {
            with(&|r| drop(r.state.0.drain(at..(at + chunk).min(entries))));
        }
        chunk /= 2;
    }
    for name in row.globals.keys() {
        with(&|r| drop(r.globals.remove(name)));
    }
    if row.unplugged.is_some() {
        with(&|r| r.unplugged = None);
    }
    if row.not_ready.is_some() {
        with(&|r| r.not_ready = None);
    }
    if row.context != (crate::outcome::Context { ifindex: 1, ..Default::default() }) {
        with(&|r| r.context = crate::outcome::Context { ifindex: 1, ..Default::default() });
        context(row, &mut with);
    }
    for part in [2, 4, 8, 16] {
        let less = row.frame.len() / part;
        if less > 0 && row.frame.len() - less >= 14 {
            with(&|r| r.frame.truncate(r.frame.len() - less));
        }
    }
    if row.frame.len() > 14 {
        with(&|r| r.frame.truncate(r.frame.len() - 1));
    }
    for at in (0..row.frame.len()).filter(|at| row.frame[*at] != 0) {
        with(&|r| r.frame[at] = 0);
    }
    for (i, entry) in row.state.0.iter().enumerate() {
        for at in (0..entry.value.len()).filter(|at| entry.value[*at] != 0) {
            with(&|r| r.state.0[i].value[at] = 0);
        }
    }
    all
}

fn context(row: &Row, with: &mut impl FnMut(&dyn Fn(&mut Row))) {
    let c = &row.context;
    if c.mark != 0 {
        with(&|r| r.context.mark = 0);
    }
    if c.priority != 0 {
        with(&|r| r.context.priority = 0);
    }
    if c.ingress_ifindex != 0 {
        with(&|r| r.context.ingress_ifindex = 0);
    }
    if c.ifindex != 1 {
        with(&|r| r.context.ifindex = 1);
    }
    for i in (0..c.cb.len()).filter(|i| c.cb[*i] != 0) {
        with(&|r| r.context.cb[i] = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use crate::fuzz::generate::Generator;

    #[test]
    fn only_what_is_wrong_is_left() {
        let mut row = Generator::new(3, None).case(77);
        row.frame = vec![9; 200];
        row.frame[40] = 0xaa;
        row.context.mark = 5;
        row.context.cb = [1, 2, 3, 4, 5];
        let smallest = shrink(&row, |r| r.frame.get(40) == Some(&0xaa) && r.context.cb[3] == 4);
        assert_eq!(smallest.frame.len(), 41);
        assert_eq!(smallest.frame.iter().filter(|b| **b != 0).count(), 1);
        assert_eq!((smallest.context.mark, smallest.context.cb), (0, [0, 0, 0, 4, 0]));
        assert!(smallest.state.0.is_empty() && smallest.globals.is_empty());
    }
}
