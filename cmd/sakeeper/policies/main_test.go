package policies

import (
	"testing"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

func TestMain(m *testing.M) { cmdtest.VerifyNoLeaks(m) }
