#!/usr/bin/env bash
# Installs what rebuilding the eBPF objects needs, on a bare Debian 12 with cargo: the distribution's newer rustc with
# its core for BPF, bpf-linker built against the LLVM of that rustc, and clang 19 for the tests' objects in C. Nothing
# else in this project needs it.
#
# Asks for root only for apt; about 80 s the first time, nothing the second time. Exit status 3: there is no way to
# install packages here (no root, no sudo without a password, no package server).
set -euo pipefail

# The version is part of the objects' fingerprint.
BPF_LINKER=0.13.0
# Not the first rustc in PATH: rustup's has no core for BPF.
RUSTC=/usr/bin/rustc
# Older releases in bookworm itself have no package for BPF, or another LLVM than what the objects are built with.
RUSTC_AT_LEAST=1.96

say() { printf 'toolchain: %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    say "cannot install packages: neither root nor sudo without a password" >&2
    return 3
  fi
}

install_packages() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

llvm_of_rustc() {
  "$RUSTC" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'
}

rustc_is_there() {
  [ -x "$RUSTC" ] || return 1
  local have
  have=$("$RUSTC" -vV | sed -n 's/^release: \([0-9.]*\).*/\1/p')
  [ "$(printf '%s\n%s\n' "$RUSTC_AT_LEAST" "$have" | sort -V | head -n 1)" = "$RUSTC_AT_LEAST" ] || return 1
  ls "$("$RUSTC" --print sysroot)"/lib/rustlib/bpfel-unknown-none/lib/libcore-*.rlib >/dev/null 2>&1
}

linker_is_there() {
  local llvm=$1 path
  path=$(command -v bpf-linker) || return 1
  [ "$(bpf-linker --version 2>/dev/null)" = "bpf-linker $BPF_LINKER" ] || return 1
  # Its LLVM must read the bitcode that this rustc writes.
  ldd "$path" | grep "libLLVM\.so\.$llvm" >/dev/null
}

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
updated=
update_once() {
  [ -z "$updated" ] || return 0
  as_root apt-get -o APT::Update::Error-Mode=any update || { say "no packages can be had here" >&2; exit 3; }
  updated=yes
}

if ! rustc_is_there; then
  say "installing rustc with its core for BPF"
  # Without fresh lists the older rustc-web of bookworm itself would be taken.
  update_once
  install_packages gcc libc6-dev rustc-web libstd-rust-web-dev-bpf
  rustc_is_there || { say "$RUSTC is older than $RUSTC_AT_LEAST or has no core for bpfel" >&2; exit 1; }
fi

llvm=$(llvm_of_rustc)
prefix=/usr/lib/llvm-$llvm

if ! [ -x "$prefix/bin/llvm-objcopy" ]; then
  say "installing LLVM $llvm"
  update_once
  install_packages "llvm-$llvm"
fi

if ! linker_is_there "$llvm"; then
  say "building bpf-linker $BPF_LINKER for LLVM $llvm"
  update_once
  install_packages gcc g++ libc6-dev zlib1g-dev libzstd-dev "llvm-$llvm-dev" "libpolly-$llvm-dev"
  # A build directory of its own: the project's settings and flags are for the project.
  (cd / && LLVM_PREFIX=$prefix RUSTFLAGS="-L $prefix/lib" \
    cargo install bpf-linker --version "$BPF_LINKER" --no-default-features --features "llvm-$llvm" --force)
  hash -r
  linker_is_there "$llvm" || { say "bpf-linker does not run, or not with LLVM $llvm" >&2; exit 1; }
fi

# The objects in C of skep-vm's tests: Debian's clang, and the kernel's headers that come with libc's.
if ! command -v clang-19 >/dev/null || ! command -v llvm-strip-19 >/dev/null || ! [ -e /usr/include/linux/bpf.h ]; then
  say "installing clang 19"
  update_once
  install_packages clang-19 llvm-19 libc6-dev
fi

say "$("$RUSTC" --version), LLVM $llvm, $(bpf-linker --version)"
