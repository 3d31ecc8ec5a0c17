package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// group is a block of constants, whose comment is its title.
type group struct {
	title     string
	constants []constant
}

func (g group) events() bool { return len(g.constants) > 0 && g.constants[0].event() }

// constant is a condition type or a reason.
type constant struct{ name, value, doc string }

// event says that it is the reason of an entry of the patch log.
func (c constant) event() bool { return strings.HasPrefix(c.name, "Event") }

// meaning is the comment without the constant's name.
func (c constant) meaning() string {
	text := strings.Join(strings.Fields(strings.TrimPrefix(c.doc, c.name)), " ")
	return strings.TrimSpace(strings.TrimPrefix(text, ":"))
}

// source is what the code says about the constants.
type source struct {
	groups []group
	// programs are the names of the API and of the patch log that each program's code uses, such as v1alpha1.ReasonBusy.
	programs map[string]map[string]bool
	// constructors are the functions of the patch log that make entries with a reason, by the name of its constant.
	constructors map[string][]string
	// levels are Normal, Warning or both, by the name of a reason's constant.
	levels map[string]map[string]bool
	// without are the constructors that use no reason.
	without []string
}

func read(root string) (*source, error) {
	s := &source{programs: map[string]map[string]bool{}, constructors: map[string][]string{}, levels: map[string]map[string]bool{}}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "api", "v1alpha1", "reasons.go"), nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the constants: %w", err)
	}
	for _, declaration := range file.Decls {
		block, ok := declaration.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		g := group{title: strings.Join(strings.Fields(block.Doc.Text()), " ")}
		for _, spec := range block.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || len(value.Values) != 1 {
				continue
			}
			if literal, ok := value.Values[0].(*ast.BasicLit); ok {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					return nil, fmt.Errorf("reading %s: %w", value.Names[0].Name, err)
				}
				g.constants = append(g.constants, constant{value.Names[0].Name, text, value.Doc.Text()})
			}
		}
		s.groups = append(s.groups, g)
	}
	for program, dir := range map[string]string{"manager": "controllers", "agent": "nodeagent"} {
		s.programs[program] = map[string]bool{}
		err := eachFile(filepath.Join(root, dir), func(file *ast.File) { selectors(file, s.programs[program]) })
		if err != nil {
			return nil, err
		}
	}
	return s, eachFile(filepath.Join(root, "api", "patchlog"), s.readConstructors)
}

// eachFile parses the Go files under a directory, but for tests.
func eachFile(dir string, do func(*ast.File)) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return fmt.Errorf("reading who uses the constants: %w", err)
		}
		do(file)
		return nil
	})
}

// selectors adds what a piece of code uses of other packages, as package.Name.
func selectors(node ast.Node, used map[string]bool) {
	ast.Inspect(node, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := selector.X.(*ast.Ident); ok {
				used[of.Name+"."+selector.Sel.Name] = true
			}
		}
		return true
	})
}

// readConstructors finds the functions that make entries, with the reason and the level of each.
func (s *source) readConstructors(file *ast.File) {
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || function.Recv != nil || !makesEntries(function) {
			continue
		}
		used, found := map[string]bool{}, false
		selectors(function.Body, used)
		for name := range used {
			if reason, is := strings.CutPrefix(name, "v1alpha1."); is && strings.HasPrefix(reason, "Event") {
				found = true
				s.constructors[reason] = append(s.constructors[reason], function.Name.Name)
				if s.levels[reason] == nil {
					s.levels[reason] = map[string]bool{}
				}
				s.levels[reason][levelIn(function)] = true
			}
		}
		if !found && function.Name.IsExported() {
			s.without = append(s.without, function.Name.Name)
		}
	}
}

// makesEntries says whether a function returns an Entry, or several.
func makesEntries(function *ast.FuncDecl) bool {
	results := function.Type.Results
	if results == nil || len(results.List) != 1 {
		return false
	}
	result := results.List[0].Type
	if list, ok := result.(*ast.ArrayType); ok {
		result = list.Elt
	}
	name, ok := result.(*ast.Ident)
	return ok && name.Name == "Entry"
}

// levelIn is the level of a function's entries: true stands there for a Warning, and nothing else is a bool.
func levelIn(function *ast.FuncDecl) string {
	level := "Normal"
	ast.Inspect(function.Body, func(n ast.Node) bool {
		if name, ok := n.(*ast.Ident); ok && name.Name == "true" {
			level = "Warning"
		}
		return true
	})
	return level
}

// users are the programs that use a constant. A constructor that is not exported is the host's log own, and with it the
// agent's.
func (s *source) users(c constant) []string {
	var users []string
	for program, used := range s.programs {
		uses := used["v1alpha1."+c.name]
		if c.event() {
			uses = slices.ContainsFunc(s.constructors[c.name], func(constructor string) bool {
				return used["patchlog."+constructor] || program == "agent" && !ast.IsExported(constructor)
			})
		}
		if uses {
			users = append(users, program)
		}
	}
	slices.Sort(users)
	return users
}

func (s *source) level(c constant) string {
	return strings.Join(slices.Sorted(maps.Keys(s.levels[c.name])), ", ")
}

// check says what is not documented or not used.
func (s *source) check() error {
	var errs []error
	for _, group := range s.groups {
		if group.title == "" {
			errs = append(errs, fmt.Errorf("the block of %s has no comment that says what it is", group.constants[0].name))
		}
		for _, c := range group.constants {
			if !strings.HasPrefix(c.doc, c.name) || c.meaning() == "" {
				errs = append(errs, fmt.Errorf("%s has no comment that says what it means", c.name))
			}
			if c.event() && !strings.HasPrefix(c.meaning(), "regards ") {
				errs = append(errs, fmt.Errorf("the comment of %s does not begin with what it regards", c.name))
			}
			if len(s.users(c)) == 0 {
				errs = append(errs, fmt.Errorf("nobody uses %s", c.name))
			}
		}
	}
	for _, name := range s.without {
		errs = append(errs, fmt.Errorf("the entries of patchlog.%s have none of the reasons of v1alpha1", name))
	}
	return errors.Join(errs...)
}
