//! Bytes in, bytes out, as `BPF_PROG_TEST_RUN` has them: a packet and a context, a number of runs, what is left of both.
//!
//! Knows what the kernel accepts and gives back (`net/bpf/test_run.c`). Runs nothing by itself.

use skep_packet::SkBuff;

use crate::{Environment, Fault, Input, Kernel, ProgramId, ProgramKind, Run, Stats, XdpBuff};

/// `sizeof(struct __sk_buff)`
const SKB_CONTEXT: usize = 192;
/// `sizeof(struct xdp_md)`
const XDP_CONTEXT: usize = 24;
/// Bytes of an Ethernet header: the least that the kernel takes.
const ETH_HLEN: usize = 14;
/// Fields of `struct __sk_buff` that can be given: name, offset, bytes.
const SKB_FIELDS: [(&str, usize, usize); 9] = [
    ("mark", 8, 4),
    ("priority", 32, 4),
    ("ingress_ifindex", 36, 4),
    ("ifindex", 40, 4),
    ("cb", 48, 20),
    ("tstamp", 152, 8),
    ("wire_len", 160, 4),
    ("gso_segs", 164, 4),
    ("hwtstamp", 184, 8),
];

/// What goes into a test run.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestInput<'a> {
    /// The packet from its Ethernet header on; of a program of the kind `Memory`, the memory.
    pub data: &'a [u8],
    /// A `struct __sk_buff`, or the start of one. Only mark, priority, `ingress_ifindex`, ifindex, cb and tstamp may be
    /// other than zero. Empty: all zero.
    pub context: &'a [u8],
    /// How often the program runs, at least once, each time over what the time before has left.
    pub repeat: u32,
}

/// What came out of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestOutput {
    /// r0 of the last run: its lower half, or of a program of the kind `Memory` all of it.
    pub return_value: u64,
    /// The packet, or the memory.
    pub data: Vec<u8>,
    /// The context; empty if the kind has none.
    pub context: Vec<u8>,
    /// The last run.
    pub run: Option<Run>,
    /// What all runs took together.
    pub total: Stats,
}

/// Why a test run did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TestError {
    /// Data or context that the kernel would refuse, too.
    #[error("{0}")]
    Input(String),
    /// The program misbehaved.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Kernel {
    /// Runs a program over data and context as `BPF_PROG_TEST_RUN` does.
    pub fn test_run(
        &mut self,
        program: ProgramId,
        input: &TestInput<'_>,
        env: &mut dyn Environment,
    ) -> Result<TestOutput, TestError> {
        let repeat = input.repeat.max(1);
        match self.program(program)?.kind() {
            ProgramKind::Memory => {
                let (mut data, mut r0) = (input.data.to_vec(), 0);
                for _ in 0..repeat {
                    r0 = self.run_memory(program, &mut data, env)?;
                }
                Ok(TestOutput {
                    return_value: r0,
                    data,
                    context: Vec::new(),
                    run: None,
                    total: Stats::default(),
                })
            }
            ProgramKind::Xdp => self.test_xdp(program, input, repeat, env),
            kind if kind.has_skb() => self.test_skb(program, input, repeat, env),
            kind => Err(TestError::Input(format!(
                "{kind:?} programs have no test run, neither here nor in the kernel"
            ))),
        }
    }

    fn test_xdp(
        &mut self,
        program: ProgramId,
        input: &TestInput<'_>,
        repeat: u32,
        env: &mut dyn Environment,
    ) -> Result<TestOutput, TestError> {
        check_ethernet(input.data)?;
        check_xdp_context(input).map_err(TestError::Input)?;
        let mut buff = XdpBuff::new(input.data, 0);
        let mut run = Run::default();
        let total = self.run_repeated(program, Input::Xdp(&mut buff), env, repeat, &mut run)?;
        let return_value = u64::from(run.return_value as u32);
        let data = buff.frame.bytes().to_vec();
        // `xdp_convert_buff_to_md`: offsets from the metadata, of which there is none.
        let mut context = vec![0; XDP_CONTEXT];
        context[4..8].copy_from_slice(&(data.len() as u32).to_le_bytes());
        Ok(TestOutput { return_value, data, context, run: Some(run), total })
    }

    fn test_skb(
        &mut self,
        program: ProgramId,
        input: &TestInput<'_>,
        repeat: u32,
        env: &mut dyn Environment,
    ) -> Result<TestOutput, TestError> {
        check_ethernet(input.data)?;
        let mut skb = SkBuff::from_frame(input.data);
        let header = match skb.protocol {
            0x0800 => 20,
            0x86dd => 40,
            _ => 0,
        };
        if input.data.len() < ETH_HLEN + header {
            let what = format!(
                "a packet of {} bytes: the kernel takes none with half of an IP header",
                input.data.len()
            );
            return Err(TestError::Input(what));
        }
        set_skb_context(&mut skb, input.context).map_err(TestError::Input)?;
        let mut run = Run::default();
        let total = self.run_repeated(program, Input::Skb(&mut skb), env, repeat, &mut run)?;
        let return_value = u64::from(run.return_value as u32);
        let (data, context) = (skb.bytes().to_vec(), skb_context(&skb));
        Ok(TestOutput { return_value, data, context, run: Some(run), total })
    }
}

/// What the kernel refuses with `EINVAL`.
fn check_ethernet(data: &[u8]) -> Result<(), TestError> {
    if data.len() >= ETH_HLEN {
        return Ok(());
    }
    let what = format!("a packet of {} bytes: the kernel takes none without an Ethernet header", data.len());
    Err(TestError::Input(what))
}

/// A `struct xdp_md` may say how long the packet is; metadata and queues are not supported here.
fn check_xdp_context(input: &TestInput<'_>) -> Result<(), String> {
    let len = (input.data.len() as u32).to_le_bytes();
    let wrong = |(at, byte): (usize, &u8)| *byte != 0 && !((4..8).contains(&at) && *byte == len[at - 4]);
    match input.context.iter().enumerate().position(wrong) {
        Some(at) => Err(format!(
            "byte {at} of the context is not zero; only data_end, the packet's length, can be given"
        )),
        None => Ok(()),
    }
}

/// Takes a `struct __sk_buff` over, refusing what `convert___skb_to_skb` refuses.
fn set_skb_context(skb: &mut SkBuff, context: &[u8]) -> Result<(), String> {
    let mut all = [0; SKB_CONTEXT];
    if let Some(at) = context.iter().skip(SKB_CONTEXT).position(|b| *b != 0) {
        return Err(format!(
            "byte {} of the context lies behind struct __sk_buff and is not zero",
            SKB_CONTEXT + at
        ));
    }
    let len = context.len().min(SKB_CONTEXT);
    all[..len].copy_from_slice(&context[..len]);
    let allowed = |at: usize| SKB_FIELDS.iter().any(|(_, offset, len)| (*offset..offset + len).contains(&at));
    if let Some(at) = (0..SKB_CONTEXT).find(|at| all[*at] != 0 && !allowed(*at)) {
        let names = SKB_FIELDS.map(|(name, ..)| name).join(", ");
        return Err(format!("byte {at} of the context is not zero; only {names} can be given"));
    }
    let field = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().expect("four bytes"));
    let wire_len = field(160);
    if wire_len != 0 && wire_len as usize != skb.len() || field(164) != 0 || all[184..] != [0; 8] {
        return Err(
            "wire_len other than the packet's length, gso_segs and hwtstamp are not supported here".into()
        );
    }
    skb.mark = field(8);
    skb.priority = field(32);
    skb.ingress_ifindex = field(36);
    skb.ifindex = field(40);
    for (n, word) in skb.cb.iter_mut().enumerate() {
        *word = field(48 + 4 * n);
    }
    skb.timestamp = u64::from(field(152)) | u64::from(field(156)) << 32;
    Ok(())
}

/// The `struct __sk_buff` that `convert_skb_to___skb` gives back.
fn skb_context(skb: &SkBuff) -> Vec<u8> {
    let mut all = vec![0; SKB_CONTEXT];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &skb.mark.to_le_bytes());
    put(32, &skb.priority.to_le_bytes());
    put(36, &skb.ingress_ifindex.to_le_bytes());
    put(40, &skb.ifindex.to_le_bytes());
    for (n, word) in skb.cb.iter().enumerate() {
        put(48 + 4 * n, &word.to_le_bytes());
    }
    put(152, &skb.timestamp.to_le_bytes());
    put(160, &(skb.len() as u32).to_le_bytes());
    all
}
