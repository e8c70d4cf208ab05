// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A cgroup connect4 translator in the manner of socket load balancers: a socket that connects to a service's address
 * connects to a backend, and the service is remembered by the socket's cookie, so that getpeername shows it.
 *
 * connect4: 1 lets the socket go on, 0 refuses it (EPERM). getpeername4 is always 1. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct address {
	__be32 ip;
	__be16 port;
	__u16 protocol;
};

struct service {
	__u32 backends;
	__u32 first;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct address);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, struct address);
} by_cookie SEC(".maps");

/* Turns over the backends of a service one after the other. */
__u32 turn = 0;

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct address wanted = { .ip = ctx->user_ip4, .port = ctx->user_port, .protocol = ctx->protocol };
	struct service *service = bpf_map_lookup_elem(&services, &wanted);
	struct address *backend;
	__u64 cookie;
	__u32 slot;

	if (!service)
		return 1;
	if (!service->backends)
		return 0;
	slot = service->first + turn++ % service->backends;
	backend = bpf_map_lookup_elem(&backends, &slot);
	if (!backend || !backend->ip)
		return 0;
	cookie = bpf_get_socket_cookie(ctx);
	bpf_map_update_elem(&by_cookie, &cookie, &wanted, 0);
	ctx->user_ip4 = backend->ip;
	ctx->user_port = backend->port;
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct address *service = bpf_map_lookup_elem(&by_cookie, &cookie);

	if (service) {
		ctx->user_ip4 = service->ip;
		ctx->user_port = service->port;
	}
	return 1;
}
