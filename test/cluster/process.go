package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a long-lived program of the control plane: started again when it ends by itself, as a
// static pod would be, and left down while a test wants it down.
type process struct {
	name    string
	command []string
	logFile string

	mu      sync.Mutex
	wanted  bool
	running *exec.Cmd
	ended   chan struct{} // closed when running has ended
}

// start starts the program if it does not run.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	if p.running != nil {
		return nil
	}
	return p.launch()
}

// launch starts the program. The caller holds the mutex.
func (p *process) launch() error {
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.running, p.ended = cmd, ended
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.running = nil
		again := p.wanted
		p.mu.Unlock()
		close(ended)
		if again {
			fmt.Fprintf(os.Stderr, "%s ended and is started again: %v\n", p.name, err)
			time.Sleep(time.Second)
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.wanted && p.running == nil {
				if err := p.launch(); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
	}()
	return nil
}

// stop ends the program and returns when it has ended.
func (p *process) stop() error {
	p.mu.Lock()
	p.wanted = false
	running, ended := p.running, p.ended
	p.mu.Unlock()
	if running == nil {
		return nil
	}
	if err := running.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	<-ended
	return nil
}
