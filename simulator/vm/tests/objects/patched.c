// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A TC program in the manner of those whose loader patches numbers into the code: nobody defines the symbols, and the
 * 16-byte load of a symbol's address becomes a load of the number that the loader has for its name. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

#define number_of(symbol) ({ __u64 _number; asm volatile("%0 = " #symbol " ll" : "=r"(_number)); _number; })

asm(".weak OPTIONAL");

const volatile __u32 limit = 3;

/* r0: ENDPOINT_ID + OPTIONAL + limit; skb->mark becomes the upper half of SEED. */
SEC("tc")
int patched(struct __sk_buff *skb)
{
	skb->mark = number_of(SEED) >> 32;
	return number_of(ENDPOINT_ID) + number_of(OPTIONAL) + limit;
}

/* Writes to a constant, which a kernel refuses. */
SEC("tc")
int spoils(struct __sk_buff *skb)
{
	*(volatile __u32 *)&limit = skb->mark;
	return 0;
}
