package main

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetCode unmaps the pages of this program's file that no process has changed, code and
// constants: most of them were needed at the start only, and the kernel maps their
// neighbours too. They stay in the page cache, and what is needed again is mapped again,
// without being read. It is most of what an idle process has resident.
func forgetCode() error {
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	path, err := os.Executable()
	if err != nil {
		return err
	}
	for _, m := range unchanged(file, path) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}

// mapping is a part of the address space.
type mapping struct {
	start, length uintptr
}

// unchanged are the mappings of the file path that nobody can write to, and that have no
// page of their own: one that was relocated, as in a position-independent program, would
// come back as it is in the file. See proc_pid_smaps(5).
func unchanged(smaps io.Reader, path string) []mapping {
	var found []mapping
	var last mapping // of path, read only; its length is 0 otherwise
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			last = mapping{}
			if len(fields) == 6 && fields[5] == path && strings.HasPrefix(fields[1], "r-") {
				last = parseRange(fields[0])
			}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && last.length > 0:
			found = append(found, last)
		}
	}
	return found
}

func parseRange(text string) mapping {
	from, to, _ := strings.Cut(text, "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil || end <= start {
		return mapping{}
	}
	return mapping{uintptr(start), uintptr(end - start)}
}
