/* Records each address that a process connects or sends to, and each name that it looks up.

   Preload it with LD_PRELOAD. ATTEMPTS names the file, to which each line is appended by one write. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void record(const char *line) {
    const char *path = getenv("ATTEMPTS");
    int file = path == NULL ? -1 : open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0) return;
    if (write(file, line, strlen(line)) < 0) abort();
    close(file);
}

static void record_address(const char *verb, const struct sockaddr *address) {
    char host[INET6_ADDRSTRLEN] = "", line[256];
    int port = 0;
    if (address == NULL) return;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        port = ntohs(in->sin_port);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        port = ntohs(in->sin6_port);
    } else if (address->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        snprintf(line, sizeof line, "%s unix:%.100s\n", verb, un->sun_path);
        record(line);
        return;
    } else {
        return;
    }
    snprintf(line, sizeof line, "%s %s:%d\n", verb, host, port);
    record(line);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "connect");
    record_address("connect", address);
    return real(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t length) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (real == NULL) real = dlsym(RTLD_NEXT, "sendto");
    record_address("send", address);
    return real(socket, data, size, flags, address, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    char line[512];
    if (real == NULL) real = dlsym(RTLD_NEXT, "getaddrinfo");
    snprintf(line, sizeof line, "resolve %.300s\n", node == NULL ? "" : node);
    record(line);
    return real(node, service, hints, found);
}
