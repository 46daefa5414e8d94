package tokenreferences

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// deletedOfRobot are the deletions of Secrets of those names.
func deletedOfRobot(names ...string) deletedSecrets {
	deleted := deletedSecrets{}
	for _, name := range names {
		deleted[name] = deletedSecret{account: testkit.AccountUID, secret: testkit.SecretUID}
	}
	return deleted
}

func expectDeletions(t *testing.T, d *deletions, account string, at time.Time, want deletedSecrets) {
	t.Helper()
	got, wait := d.get(objectName(account), at)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(deletedSecret{})); diff != "" || wait > 0 {
		t.Errorf("deletions of %s, to wait for %v (-want +got):\n%s", account, wait, diff)
	}
}

func expectWait(t *testing.T, d *deletions, at time.Time, want time.Duration) {
	t.Helper()
	if got, wait := d.get(objectName("team/robot"), at); wait != want || got != nil {
		t.Errorf("at %v: wait %v, want %v, deletions %v", at, wait, want, got)
	}
}

func expectNothingRemembered(t *testing.T, d *deletions) {
	t.Helper()
	if len(d.byAccount) > 0 {
		t.Errorf("remembered %v", d.byAccount)
	}
}

func at(ms int) time.Time { return testkit.Instant().Add(time.Duration(ms) * time.Millisecond) }

func TestDeletionsAreRememberedUntilTheyAreDone(t *testing.T) {
	d := newDeletions()
	expectDeletions(t, d, "team/robot", at(0), nil)
	d.add(secretOfRobot("a", testkit.AccountUID), at(0))
	expectWait(t, d, at(0), 50*time.Millisecond)
	d.add(secretOfRobot("b", testkit.AccountUID), at(30))
	expectWait(t, d, at(50), 30*time.Millisecond)
	expectWait(t, d, at(79), time.Millisecond)
	expectDeletions(t, d, "team/default", at(79), nil)
	expectDeletions(t, d, "other/robot", at(79), nil)
	expectDeletions(t, d, "team/robot", at(80), deletedOfRobot("a", "b"))

	d.done(objectName("team/robot"), deletedOfRobot("a", "c"))
	// Also much later, as after a failed write.
	expectDeletions(t, d, "team/robot", at(300000), deletedOfRobot("b"))
	d.done(objectName("team/robot"), deletedOfRobot("b"))
	expectDeletions(t, d, "team/robot", at(300000), nil)
	expectNothingRemembered(t, d)
	d.done(objectName("team/robot"), deletedOfRobot("b"))
}

func TestABatchEndsWhileDeletionsGoOn(t *testing.T) {
	d := newDeletions()
	var names []string
	for i := range 25 { // every 40 ms
		names = append(names, string(rune('a'+i)))
		d.add(secretOfRobot(names[i], testkit.AccountUID), at(i*40))
	}
	expectWait(t, d, at(990), 10*time.Millisecond)
	expectDeletions(t, d, "team/robot", at(1000), deletedOfRobot(names...))
	d.add(secretOfRobot("z", testkit.AccountUID), at(1001))
	d.done(objectName("team/robot"), deletedOfRobot(names...))
	expectWait(t, d, at(1001), 50*time.Millisecond)
}

func TestADeletionThatFollowsIsNotDone(t *testing.T) {
	d := newDeletions()
	d.add(secretOfRobot("a", testkit.AccountUID), at(0))
	deleted, _ := d.get(objectName("team/robot"), at(1000))
	again := secretOfRobot("a", testkit.AccountUID)
	again.UID = "another"
	d.add(again, at(1000))
	d.done(objectName("team/robot"), deleted)
	expectDeletions(t, d, "team/robot", at(2000), deletedSecrets{"a": {account: testkit.AccountUID, secret: "another"}})
}

func TestDeletionsOfAnAccountThatIsNotCachedExpire(t *testing.T) {
	d, robot := newDeletions(), objectName("team/robot")
	d.add(secretOfRobot("a", testkit.AccountUID), at(0))
	for ms, want := range map[int]time.Duration{1000: 119 * time.Second, 119999: time.Millisecond} {
		if left := d.expire(robot, at(ms)); left != want {
			t.Errorf("after %d ms: %v are left, want %v", ms, left, want)
		}
	}
	if left := d.expire(robot, at(120000)); left != 0 {
		t.Errorf("%v are left", left)
	}
	expectNothingRemembered(t, d)
	if left := d.expire(robot, at(120000)); left != 0 {
		t.Errorf("without deletions, %v are left", left)
	}
}

func TestALiveReadIsNeededUntilDeletionsAreDone(t *testing.T) {
	d, robot := newDeletions(), objectName("team/robot")
	needed := func() bool { return d.liveReadRequired(robot) }
	d.requireLiveRead(robot)
	if needed() {
		t.Error("needed without a deletion")
	}
	d.add(secretOfRobot("a", testkit.AccountUID), at(0))
	d.requireLiveRead(robot)
	if !needed() {
		t.Error("not needed")
	}
	d.add(secretOfRobot("b", testkit.AccountUID), at(0))
	d.done(robot, deletedOfRobot("a"))
	if needed() {
		t.Error("still needed")
	}
}

func TestIncludes(t *testing.T) {
	deleted := deletedSecrets{"of-this": {account: testkit.AccountUID}, "of-another": {account: testkit.OtherUID}, "of-no-uid": {}}
	for name, want := range map[string]bool{"of-this": true, "of-another": false, "of-no-uid": true, "not-deleted": false} {
		if got := deleted.includes(name, testkit.AccountUID); got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if deletedSecrets(nil).includes("a", testkit.AccountUID) {
		t.Error("includes one of none")
	}
}
