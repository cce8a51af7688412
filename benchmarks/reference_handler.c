/* What a page server is measured against: the least that answers faults, in C.
 *
 * reference_handler serve SOCKET LAYER [START:END...]
 *     Listens at SOCKET and prints "listening", takes one handshake, copies the runs of pages from the file LAYER, and
 *     prints how many bytes that were and how many nanoseconds they took. Then it answers every fault with its page,
 *     by one poll, one read and one UFFDIO_COPY, until it is killed or nobody is left.
 *
 * reference_handler memcpy LAYER START:END...
 *     Copies the runs to memory that is not there yet, then once more, and prints the bytes and both times.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

struct run {
    uint64_t start, length; /* bytes */
};

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(1);
    }
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static char *map_layer(const char *path, size_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    check(fd >= 0 && fstat(fd, &status) == 0, path);
    *bytes = status.st_size;
    /* Populated: a page server has its layers in its page tables from the first fork on, and this serves one only. */
    char *layer = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_POPULATE, fd, 0);
    check(layer != MAP_FAILED, "mmap");
    return layer;
}

static struct run parse_run(const char *text) {
    char *colon;
    uint64_t start = strtoull(text, &colon, 10), end = strtoull(colon + 1, NULL, 10);
    return (struct run){start * PAGE, (end - start) * PAGE};
}

static int copy(int uffd, uint64_t to, const char *from, uint64_t length) {
    struct uffdio_copy copy = {.dst = to, .src = (uintptr_t)from, .len = length};
    return ioctl(uffd, UFFDIO_COPY, &copy);
}

static int accept_uffd(const char *path, uint64_t *base) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(listener, 1) == 0, "listen");
    puts("listening");
    fflush(stdout);
    int peer = accept(listener, NULL, NULL), uffd;
    check(peer >= 0, "accept");

    char mappings[4096] = {0}, control[CMSG_SPACE(sizeof uffd)];
    struct iovec text = {mappings, sizeof mappings - 1};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    check(recvmsg(peer, &message, MSG_CMSG_CLOEXEC) > 0, "recvmsg");
    memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof uffd);
    const char *key = "\"base_host_virt_addr\":", *found = strstr(mappings, key);
    check(found != NULL, "mappings");
    *base = strtoull(found + strlen(key), NULL, 10);
    return uffd;
}

static void answer_faults(int uffd, uint64_t base, const char *layer) {
    struct pollfd faults = {uffd, POLLIN, 0};
    struct uffd_msg message;
    while (poll(&faults, 1, -1) == 1 && !(faults.revents & POLLERR)) {
        if (read(uffd, &message, sizeof message) != sizeof message || message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        uint64_t page = message.arg.pagefault.address & -(uint64_t)PAGE;
        if (copy(uffd, page, layer + (page - base), PAGE) != 0 && errno != EEXIST)
            return;
    }
}

static int serve(const char *path, const char *layer, int runs, char **texts) {
    uint64_t base, bytes = 0;
    int uffd = accept_uffd(path, &base);
    uint64_t began = now();
    for (int number = 0; number < runs; number++) {
        struct run run = parse_run(texts[number]);
        check(copy(uffd, base + run.start, layer + run.start, run.length) == 0, "UFFDIO_COPY");
        bytes += run.length;
    }
    printf("%lu %lu\n", (unsigned long)bytes, (unsigned long)(now() - began));
    fflush(stdout);
    answer_faults(uffd, base, layer);
    return 0;
}

static uint64_t copy_all(char *memory, const char *layer, int runs, char **texts, uint64_t *bytes) {
    uint64_t began = now();
    *bytes = 0;
    for (int number = 0; number < runs; number++) {
        struct run run = parse_run(texts[number]);
        memcpy(memory + run.start, layer + run.start, run.length);
        *bytes += run.length;
    }
    return now() - began;
}

int main(int count, char **arguments) {
    size_t size;
    uint64_t bytes;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count >= 4 && strcmp(arguments[1], "serve") == 0)
        return serve(arguments[2], map_layer(arguments[3], &size), count - 4, arguments + 4);
    if (count < 4 || strcmp(arguments[1], "memcpy") != 0) {
        fprintf(stderr, "usage: reference_handler serve SOCKET LAYER [START:END...] | memcpy LAYER START:END...\n");
        return 2;
    }
    char *layer = map_layer(arguments[2], &size);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    /* UFFDIO_COPY fills pages of 4 KiB, and what is compared with it does the same. */
    madvise(memory, size, MADV_NOHUGEPAGE);
    uint64_t absent = copy_all(memory, layer, count - 3, arguments + 3, &bytes);
    uint64_t present = copy_all(memory, layer, count - 3, arguments + 3, &bytes);
    printf("%lu %lu %lu\n", (unsigned long)bytes, (unsigned long)absent, (unsigned long)present);
    return 0;
}
