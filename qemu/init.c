// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of the guest (/usr/sbin/kpw-init in the image). A shell script that
 * did the same took as long as the kernel's own boot: under TCG every program
 * started costs tens of milliseconds. This starts one: the command.
 *
 * The root is read-only; an overlay on tmpfs makes it writable. The second
 * disk is a tar with the payload: "command" is what to run, "tty" (if there)
 * says that a person sits at the virtio console. A guest that a snapshot is
 * made of (kpw_preload) runs preload.py instead, which has the payload
 * unpacked by "kpw-init unpack" once it is there.
 *
 * The console belongs to the kernel alone. What the command prints leaves by
 * the virtio port kpw.output, what it found by kpw.results. A port can be
 * open only once at a time: nothing here holds one while the command runs,
 * but for the command's own output.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESULTS "/dev/virtio-ports/kpw.results"
#define OUTPUT "/dev/virtio-ports/kpw.output"

static const char *const environment[] = {
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
	/* Looking for plugins costs pytest a tenth of its start; ours are named. */
	"PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", NULL,
};

static const struct {
	const char *type, *where, *options;
	unsigned long flags;
	int optional;
} mounts[] = {
	{ "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV, 0 },
	{ "devpts", "/dev/pts", "mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, 0 },
	{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, 0 },
	{ "tmpfs", "/payload", "mode=755", 0, 0 },
	/* Not every configuration has these. */
	{ "debugfs", "/sys/kernel/debug", NULL, 0, 1 },
	{ "tracefs", "/sys/kernel/tracing", NULL, 0, 1 },
	{ "cgroup2", "/sys/fs/cgroup", NULL, 0, 1 },
	{ "bpf", "/sys/fs/bpf", NULL, 0, 1 },
};

static const char *const directories[] = { "/run/lock", "/run/netns", "/dev/virtio-ports" };

static const char *const links[][2] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "/proc/self/fd/0", "/dev/stdin" },
	{ "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" },
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* The console shows what failed; the host sees that there is no first line. */
static void check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		reboot(RB_AUTOBOOT);
	}
}

static void make_root_writable(void)
{
	check(mount("kpw", "/mnt", "tmpfs", 0, "mode=755"), "kpw-init: tmpfs");
	check(mkdir("/mnt/upper", 0755), "kpw-init: upper");
	check(mkdir("/mnt/work", 0755), "kpw-init: work");
	check(mkdir("/mnt/root", 0755), "kpw-init: root");
	check(mount("kpw", "/mnt/root", "overlay", 0,
		    "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work"), "kpw-init: overlay");
	check(mount("dev", "/mnt/root/dev", "devtmpfs", MS_NOSUID, NULL), "kpw-init: devtmpfs");
	check(chdir("/mnt/root"), "kpw-init: chdir");
	check(syscall(SYS_pivot_root, ".", "mnt"), "kpw-init: pivot_root");
	check(chdir("/"), "kpw-init: chdir");
	check(umount2("/mnt", MNT_DETACH), "kpw-init: umount");
}

static void mount_the_rest(void)
{
	for (size_t i = 0; i < LENGTH(mounts); i++) {
		mkdir(mounts[i].where, 0755);
		int result = mount(mounts[i].type, mounts[i].where, mounts[i].type,
				   mounts[i].flags, mounts[i].options);
		if (!mounts[i].optional)
			check(result, mounts[i].where);
	}
	for (size_t i = 0; i < LENGTH(directories); i++)
		mkdir(directories[i], 0755);
	for (size_t i = 0; i < LENGTH(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0)
			perror(links[i][1]);
}

static void raise_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int control = socket(AF_INET, SOCK_DGRAM, 0);

	if (control < 0 || ioctl(control, SIOCSIFFLAGS, &request) < 0)
		perror("kpw-init: lo");
	close(control);
}

static int read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "r");
	char *got = file ? fgets(line, size, file) : NULL;

	if (file)
		fclose(file);
	if (!got)
		return -1;
	line[strcspn(line, "\n")] = '\0';
	return 0;
}

/* There is no udev to name the ports. */
static void name_ports(void)
{
	static const char class[] = "/sys/class/virtio-ports";
	char path[512], name[128], target[300];
	DIR *ports = opendir(class);

	for (struct dirent *port; ports && (port = readdir(ports));) {
		snprintf(path, sizeof(path), "%s/%s/name", class, port->d_name);
		if (port->d_name[0] == '.' || read_line(path, name, sizeof(name)) < 0)
			continue;
		snprintf(path, sizeof(path), "/dev/virtio-ports/%s", name);
		snprintf(target, sizeof(target), "/dev/%s", port->d_name);
		if (symlink(target, path) < 0)
			perror(path);
	}
	if (ports)
		closedir(ports);
}

/* Who held the port may have been killed only now: try for two seconds. */
static void report(const char *line)
{
	for (int tries = 0; tries < 2000; tries++) {
		int port = open(RESULTS, O_WRONLY | O_CLOEXEC);
		if (port >= 0) {
			if (write(port, line, strlen(line)) < 0)
				perror("kpw-init: " RESULTS);
			close(port);
			return;
		}
		usleep(1000);
	}
	perror("kpw-init: " RESULTS);
}

static void report_boot(void)
{
	char uptime[128] = "0", release[128] = "", line[400];

	read_line("/proc/uptime", uptime, sizeof(uptime));
	read_line("/proc/sys/kernel/osrelease", release, sizeof(release));
	uptime[strcspn(uptime, " ")] = '\0';
	snprintf(line, sizeof(line), "{\"kpw\":\"boot\",\"uptime\":%s,\"release\":\"%s\"}\n",
		 uptime, release);
	report(line);
}

static void redirect(int terminal)
{
	int in = open(terminal ? "/dev/hvc0" : "/dev/null", O_RDWR | O_NOCTTY);
	int out = terminal ? in : open(OUTPUT, O_WRONLY);

	setsid();
	if (terminal)
		ioctl(in, TIOCSCTTY, 1);
	dup2(in, 0);
	if (out >= 0) {
		dup2(out, 1);
		dup2(out, 2);
	}
	for (int fd = 3; fd < 16; fd++)
		close(fd);
}

/* The next part of the payload; the disk's end is the end of the guest. */
static void take(FILE *disk, void *into, size_t size)
{
	if (fread(into, 1, size, disk) != size)
		check(-1, "kpw-init: the payload is cut short");
}

static void write_file(FILE *disk, const char *path, unsigned long size, unsigned int mode)
{
	static char block[512 * 128];
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

	check(file, path);
	while (size > 0) {
		size_t part = size < sizeof(block) ? size : sizeof(block);
		take(disk, block, (part + 511) & ~511UL);
		if (write(file, block, part) != (ssize_t)part)
			check(-1, path);
		size -= part;
	}
	close(file);
}

static void make_parents(char *path)
{
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
}

/*
 * GNU tar's format, as far as the host writes it: files, directories, and
 * names of any length ('L' holds the next entry's). Stops at the first empty
 * header; a tar program would read the whole disk.
 */
static void unpack_payload(void)
{
	FILE *disk = fopen("/dev/vdb", "r");
	char header[512], name[4096];
	int named = 0;

	check(disk && chdir("/payload") == 0 ? 0 : -1, "kpw-init: /dev/vdb");
	/* What the kernel read when it looked for partitions may be a snapshot's. */
	check(ioctl(fileno(disk), BLKFLSBUF), "kpw-init: /dev/vdb");
	for (take(disk, header, 512); header[0]; take(disk, header, 512)) {
		unsigned long size = strtoul(header + 124, NULL, 8);
		unsigned int mode = strtoul(header + 100, NULL, 8);

		if (header[156] == 'L') {
			if (size >= sizeof(name) - 512)
				check(-1, "kpw-init: a name in the payload is too long");
			take(disk, name, (size + 511) & ~511UL);
			name[size] = '\0';
			named = 1;
			continue;
		}
		if (!named)
			snprintf(name, sizeof(name), "%.100s", header);
		named = 0;
		make_parents(name);
		if (header[156] == '5')
			mkdir(name, mode);
		else
			write_file(disk, name, size, mode);
	}
	fclose(disk);
}

/* Start the command and wait for it; orphans are buried on the way. */
static int run(const char *command)
{
	pid_t ended, child = fork();
	int status = 0;

	if (child == 0) {
		char *words[] = { (char *)command, NULL };

		redirect(access("/payload/tty", F_OK) == 0);
		execve(command, words, (char *const *)environment);
		perror(command);
		_exit(126);
	}
	do
		ended = wait(&status);
	while (ended != child && ended > 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	/* A word of the kernel's command line that the kernel does not know. */
	const char *preload = getenv("kpw_preload");
	char line[64];

	if (argc > 1 && strcmp(argv[1], "unpack") == 0) {
		unpack_payload();
		return 0;
	}
	make_root_writable();
	mount_the_rest();
	raise_loopback();
	name_ports();
	if (!preload) {
		report_boot();
		unpack_payload();
	}
	check(chdir("/root"), "kpw-init: /root");
	snprintf(line, sizeof(line), "{\"kpw\":\"exit\",\"status\":%d}\n",
		 run(preload ? "/usr/lib/kpw/preload.py" : "/payload/command"));
	/* Whoever is left could still hold a port open. */
	kill(-1, SIGKILL);
	report(line);
	reboot(RB_AUTOBOOT);
	return 1;
}
