package behaviour

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

var shellBlock = regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$")

// Block returns the only block of shell commands in a chapter (a file) that begins with that text, as
// it stands, but for the indentation of a list.
func Block(chapter, beginning string) (string, error) {
	content, err := os.ReadFile(chapter)
	if err != nil {
		return "", err
	}
	var found []string
	for _, match := range shellBlock.FindAllStringSubmatch(string(content), -1) {
		block := strings.TrimPrefix(strings.ReplaceAll("\n"+match[2], "\n"+match[1], "\n"), "\n")
		if strings.HasPrefix(block, beginning) {
			found = append(found, block)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s has %d blocks that begin with %q", chapter, len(found), beginning)
	}
	return found[0], nil
}
