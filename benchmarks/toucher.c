/* The faulting side of a fork without a VM: real memory, a real userfaultfd and Firecracker's handshake.
 *
 * toucher SOCKET BYTES PAGES RUN STRIDE
 *
 * It reads one byte of stdin, sends the handshake for BYTES of memory to SOCKET and prints "connected". It waits
 * for the end of stdin (several share one pipe, and all are let go at once), touches PAGES pages in ascending order, the
 * first RUN of every STRIDE, and prints when it began and ended, in nanoseconds of CLOCK_MONOTONIC, and how many were
 * wrong: the first word of page N has to be N + 1. Then it stays until it is killed.
 */
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
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

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

static int register_memory(void *memory, size_t bytes) {
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    check(uffd >= 0, "userfaultfd");
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    check(ioctl(uffd, UFFDIO_API, &api) == 0, "UFFDIO_API");
    struct uffdio_register range = {
        .range = {(uintptr_t)memory, bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    check(ioctl(uffd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
    return uffd;
}

static void shake_hands(const char *path, void *memory, size_t bytes, int uffd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connect(peer, (struct sockaddr *)&address, sizeof address) == 0, "connect");

    char mappings[256];
    int length = snprintf(mappings, sizeof mappings,
                          "[{\"base_host_virt_addr\":%lu,\"size\":%zu,\"offset\":0,\"page_size\":%d,\"page_size_kib\":%d}]",
                          (unsigned long)memory, bytes, PAGE, PAGE);
    struct iovec text = {mappings, length};
    char control[CMSG_SPACE(sizeof uffd)] = {0};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof uffd);
    memcpy(CMSG_DATA(header), &uffd, sizeof uffd);
    check(sendmsg(peer, &message, 0) == length, "sendmsg");
}

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "usage: toucher SOCKET BYTES PAGES RUN STRIDE\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t bytes = strtoull(arguments[2], NULL, 10);
    uint64_t pages = strtoull(arguments[3], NULL, 10);
    uint64_t run = strtoull(arguments[4], NULL, 10), stride = strtoull(arguments[5], NULL, 10);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    int uffd = register_memory(memory, bytes);

    char byte;
    check(read(STDIN_FILENO, &byte, 1) == 1, "stdin");
    shake_hands(arguments[1], memory, bytes, uffd);
    puts("connected");
    fflush(stdout);
    struct pollfd end = {.fd = STDIN_FILENO};
    check(poll(&end, 1, -1) == 1, "poll");

    uint64_t wrong = 0, began = now();
    for (uint64_t touched = 0; touched < pages; touched++) {
        uint64_t page = touched / run * stride + touched % run;
        wrong += *(volatile uint64_t *)(memory + page * PAGE) != page + 1;
    }
    uint64_t ended = now();
    printf("%lu %lu %lu\n", (unsigned long)began, (unsigned long)ended, (unsigned long)wrong);
    fflush(stdout);
    pause();
    return 0;
}
