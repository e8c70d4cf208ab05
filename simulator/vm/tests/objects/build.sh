#!/bin/sh
# Builds the objects of this folder with clang-19 (Debian's package; or CLANG and STRIP from the environment);
# `cargo xtask c-objects` calls it.
# The same compiler gives the same bytes. With --check, the committed objects are compared instead.
set -eu
cd "$(dirname "$0")"
clang=${CLANG:-clang-19}
strip=${STRIP:-llvm-strip-19}
out=.
if [ "${1:-}" = --check ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
build() {
	name=$1
	shift
	"$clang" -target bpf -O2 -Wall -Wno-unused -Wno-address-of-packed-member -idirafter /usr/include/x86_64-linux-gnu \
		-fdebug-compilation-dir=. "$@" -c "$name.c" -o "$out/$name.o"
	"$strip" -g "$out/$name.o"
	if [ "$out" != . ] && ! cmp "$name.o" "$out/$name.o"; then
		echo "$name.o is not what $clang makes of $name.c" >&2
		exit 1
	fi
}
build policy -mcpu=v3 -g
build balancer -mcpu=v3 -g
build connect -mcpu=v3 -g
build patched -mcpu=v3 -g
build legacy -mcpu=v1
build nested -mcpu=v1
if [ "$out" != . ]; then
	echo "6 objects rebuilt with $("$clang" --version | head -n 1): the same bytes as the committed ones"
fi
