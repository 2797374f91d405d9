package main

import (
	"cmp"
	"context"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

var (
	// One address, or a name of several: dns:///chat-service-headless:50051.
	target = cmp.Or(os.Getenv("CHAT_TARGET"), "127.0.0.1:50051")
	model  = cmp.Or(os.Getenv("CHAT_MODEL"), "default")
)

// connect returns a connection. A process needs one: it carries any number of calls at a time.
func connect() (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // or credentials.NewTLS
		// Each call goes to the next address of the name.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		// Ping a silent server, also between calls, and notice within 10 s that it is gone.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                60 * time.Second,
			Timeout:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		// The default of 4 MiB is too small for the largest answers.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
	)
}

// withKey returns a context whose calls send the API key.
func withKey(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("CHAT_KEY"))
}
