//! Breaks an object in one exact way: a program that only returns "ok", or a map whose look-ups miss.
//!
//! Knows ELF and the encoding of a few instructions. Does not know what a scenario is.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};
use std::collections::BTreeMap;

/// Bytes of an instruction.
const INSN: usize = 8;
/// `r0 = 0`.
const MOV_R0_0: [u8; INSN] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
/// `exit`.
const EXIT: [u8; INSN] = [0x95, 0, 0, 0, 0, 0, 0, 0];
const LD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const MOV64_REG: u8 = 0xbf;

/// `bpf_map_lookup_elem`, and the register that holds its map.
const LOOKUP: (i32, u8) = (1, 1);
/// `bpf_tail_call`, and the register that holds its map.
const TAIL_CALL: (i32, u8) = (12, 2);

/// The object with the program's first instructions replaced by `return TC_ACT_OK`; `None` if it has no such program.
pub fn return_ok(object: &[u8], program: &str) -> Option<Vec<u8>> {
    let file = object::File::parse(object).expect("a committed object is an ELF file");
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.kind() == SymbolKind::Text)?;
    let section = file.section_by_index(symbol.section_index()?).expect("a symbol's section exists");
    let (start, _) = section.file_range().expect("code stands in the file");
    let at = (start + symbol.address()) as usize;
    let mut out = object.to_vec();
    // A relocation may point into the first instructions; one that patched `r0 = 0` would undo the damage.
    assert!(
        !section.relocations().any(|(o, _)| (symbol.address()..symbol.address() + 16).contains(&o)),
        "{program}: a relocation stands where the replacement goes"
    );
    out[at..at + INSN].copy_from_slice(&MOV_R0_0);
    out[at + INSN..at + 2 * INSN].copy_from_slice(&EXIT);
    Some(out)
}

/// The object with every look-up in `map` (a tail call through it, for a program array) replaced by a miss, and how
/// many were replaced.
pub fn miss(object: &[u8], map: &str) -> (Vec<u8>, usize) {
    let file = object::File::parse(object).expect("a committed object is an ELF file");
    let mut out = object.to_vec();
    let mut replaced = 0;
    for section in file.sections().filter(|s| s.kind() == object::SectionKind::Text) {
        let code = section.data().expect("code stands in the file");
        let (start, _) = section.file_range().unwrap_or((0, 0));
        let maps: BTreeMap<usize, String> = section
            .relocations()
            .filter_map(|(offset, r)| match r.target() {
                RelocationTarget::Symbol(i) => {
                    let name = file.symbol_by_index(i).ok()?.name().ok()?.to_owned();
                    Some((offset as usize / INSN, name))
                }
                _ => None,
            })
            .collect();
        for (i, insn) in code.chunks_exact(INSN).enumerate() {
            let imm = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]);
            if insn[0] != CALL || insn[1] >> 4 != 0 {
                continue;
            }
            let Some((_, register)) = [LOOKUP, TAIL_CALL].into_iter().find(|(f, _)| *f == imm) else {
                continue;
            };
            if origin(code, &maps, i, register) == Some(map) {
                let at = start as usize + i * INSN;
                out[at..at + INSN].copy_from_slice(&MOV_R0_0);
                replaced += 1;
            }
        }
    }
    (out, replaced)
}

/// The map that `register` holds before instruction `at`, by walking back over the straight line before it.
fn origin<'a>(
    code: &[u8],
    maps: &'a BTreeMap<usize, String>,
    at: usize,
    mut register: u8,
) -> Option<&'a str> {
    for i in (0..at).rev() {
        let insn = &code[i * INSN..(i + 1) * INSN];
        let (dst, src) = (insn[1] & 15, insn[1] >> 4);
        match insn[0] {
            // The second half of a 64-bit load has opcode 0 and is no instruction.
            0 => continue,
            LD_IMM64 if dst == register => return maps.get(&i).map(String::as_str),
            MOV64_REG if dst == register => register = src,
            _ => {}
        }
    }
    None
}
