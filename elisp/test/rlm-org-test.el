;;; rlm-org-test.el --- What becomes of a model's Markdown -*- lexical-binding: t; -*-

;; Copyright (c) 2026 The rlmd maintainers
;; SPDX-License-Identifier: MIT

;;; Commentary:

;; Line by line as a table; then random text, of which only this is
;; asked: that Org finds nothing in it that acts or tears.

;;; Code:

(require 'rlm-test)
(require 'rlm-stream)
(require 'org)
(require 'org-element)

(defun rlm-test-org (markdown)
  "Return MARKDOWN converted as a whole."
  (let* ((state (rlm--org-make))
         (lines (mapcar (lambda (line) (rlm--org-line line state))
                        (split-string markdown "\n"))))
    (mapconcat #'identity (delq nil (append lines (list (rlm--org-end state)))) "\n")))

(defconst rlm-test-org-lines
  (let ((z rlm--zwsp))
    `(;; headings
      ("# Title" . "*Title*")
      ("### A **bold** `one` ##" . "*A bold one*")
      ("#" . ,(concat z "#"))
      ("** Org's own" . "*Org's own*")
      ("# * star" . "*star*")
      ("#include <x.h>" . "#include <x.h>")
      ;; emphasis
      ("a **b** c" . "a *b* c")
      ("__b__ *i* _i_ ***bi*** ~~s~~" . "*b* /i/ /i/ */bi/* +s+")
      ("snake_case_name 2*3*4 a * b" . "snake_case_name 2*3*4 a * b")
      ("**unclosed" . "**unclosed")
      ("**two *nested* here**" . "**two /nested/ here**")
      ("**Note** at the start" . "*Note* at the start")
      ("Ж**б**я" . "Ж**б**я")
      ("(**b**). **c**." . "(*b*). *c*.")
      ("{**b**} '**c**'\t**d**;" . "{*b*} '*c*'\t*d*;")
      ("x\\**b**=**c**" . ,(concat "x\\" z "*b*" z "=" z "*c*"))
      ;; code
      ("`code`, `a~b`, ``a`b``" . "~code~, =a~b=, ~a`b~")
      ("foo`bar`baz" . ,(concat "foo" z "~bar~" z "baz"))
      ("`a `` b` ``c ` d``" . "~a `` b~ ~c ` d~")
      ("` \ta ` b" . "~a~ b")
      ("an `unclosed tick" . "an `unclosed tick")
      ("`**not bold**`" . "~**not bold**~")
      ;; lists, rules, tables
      ("* item" . "- item")
      ("  + item **b**" . "  - item *b*")
      ("1. one" . "1. one")
      ("***" . "-----")
      ("- - -" . "-----")
      ("|---|:-:|" . "|---+---|")
      ("*" . ,(concat z "*"))
      ;; links
      ("[a](https://x.y/z_(1))" . "[[https://x.y/z_(1)][a]]")
      ("![a](http://x/i.png \"t\")" . "[[http://x/i.png][a]]")
      ("[a](src/app.py)" . "[[file:src/app.py][a]]")
      ("[a](/etc/passwd)" . "[a](/etc/passwd)")
      ("[a](shell:rm)" . ,(concat "[a](shell" z ":rm)"))
      ("[a](elisp:(kill-emacs))" . ,(concat "[a](elisp" z ":(kill-emacs))"))
      ("[[shell:ls][x]]" . ,(concat "[" z "[shell" z ":ls][x]]"))
      ;; what Org would act upon
      (":END:" . "=:END:=")
      ("  :properties:" . "=:properties:=")
      ("#+include: \"/etc/passwd\"" . ,(concat z "#+include: \"/etc/passwd\""))
      ("  #+call: x()" . ,(concat "  " z "#+call: x()"))
      ("x src_sh{ls} y" . ,(concat "x src" z "_sh{ls} y"))
      ("call_x()" . ,(concat "call" z "_x()"))
      ("{{{m(x)}}}" . ,(concat "{{" z "{m(x)}}}"))
      ("%%(diary)" . ,(concat z "%%(diary)"))
      ("a <%%(diary)>" . ,(concat "a <" z "%%(diary)>"))
      ("Local\sVariables:" . ,(concat "Local" z " Variables:"))
      ("carriage return\r" . "carriage return")))
  "Lines of Markdown and the Org text that becomes of each.")

(ert-deftest rlm-org-lines ()
  "Each line of the table becomes what stands beside it."
  (pcase-dolist (`(,markdown . ,org) rlm-test-org-lines)
    (should (equal (cons markdown (rlm-test-org markdown)) (cons markdown org)))))

(ert-deftest rlm-org-blocks ()
  "Code blocks keep their text, escaped as Org does it, whatever it is."
  (should (equal (rlm-test-org "```python\n* x\n#+end_src\n  # c\n`y` **z**\n```\nafter")
                 "#+begin_src python\n,* x\n,#+end_src\n  # c\n`y` **z**\n#+end_src\nafter"))
  (should (equal (rlm-test-org "```\nplain\n```") "#+begin_example\nplain\n#+end_example"))
  (should (equal (rlm-test-org "~~~~ bash\n~~~\n~~~~") "#+begin_src sh\n~~~\n#+end_src"))
  (should (equal (rlm-test-org "```python\nnever closed")
                 "#+begin_src python\nnever closed\n#+end_src"))
  (should (equal (rlm-test-org "#+begin_src sh :tangle ~/.bashrc :eval yes\nls\n#+end_src")
                 "#+begin_src sh\nls\n#+end_src"))
  (should (equal (rlm-test-org "> a\n> *b*\n\nc\n> d")
                 "#+begin_quote\na\n*b*\n#+end_quote\n\nc\n#+begin_quote\nd\n#+end_quote"))
  (should (equal (rlm-test-org "> a\n```\nx\n```")
                 "#+begin_quote\na\n#+end_quote\n#+begin_example\nx\n#+end_example")))

(ert-deftest rlm-org-emphasis-is-seen-by-org ()
  "What is marked up is parsed as such, zero width spaces and all."
  (with-temp-buffer
    (org-mode)
    (insert (rlm-test-org "foo`bar`baz and (**bold**) x\u00a0*it*."))
    (let ((found (org-element-map (org-element-parse-buffer) '(code bold italic)
                   #'org-element-type)))
      (should (equal found '(code bold italic))))))

;;;; Nothing acts, nothing tears

(defun rlm-test-org-harmless-p (text)
  "Return non-nil if Org finds nothing in TEXT that acts or tears."
  (with-temp-buffer
    (let ((org-inhibit-startup t))
      (org-mode))
    (insert "* Before\n:LOGBOOK:\n" text "\n:END:\n* After\n")
    (let ((tree (org-element-parse-buffer)))
      (and (= 2 (length (org-element-map tree 'headline #'identity)))
           ;; The drawer reaches to its own end, and not to one within.
           (equal (list (save-excursion (re-search-backward "^\\* After")
                                        (match-beginning 0)))
                  (org-element-map tree 'drawer
                    (lambda (drawer) (org-element-property :end drawer))))
           (null (org-element-map tree
                     '(keyword babel-call inline-src-block inline-babel-call
                               macro property-drawer node-property comment diary-sexp)
                   #'org-element-type))
           (null (org-element-map tree 'link
                   (lambda (link)
                     (not (member (org-element-property :type link)
                                  '("http" "https" "mailto" "file"))))
                   nil t))
           (null (org-element-map tree 'src-block
                   (lambda (block) (org-element-property :parameters block))))))))

(defun rlm-test-org-random (random)
  "Return nasty text, by RANDOM, a function of a limit."
  (let ((bits ["* " "** " "*" "**" "#" "# " "#+" "#+include: x" "#+begin_src sh :tangle x"
               "#+end_src" ":END:" ":end:" ":PROPERTIES:" "```" "```python" "~~~" "`" "``"
               "[[" "]]" "[a](" ")" "elisp:" "shell:ls" "src_sh{" "}" "call_x()" "{{{" "}}}"
               "> " "- " "|" "---" "\n" "\n" "\n" "\n" "\n:END:\n"
               "\n```\n" "\n```sh\n" "\n* x\n" "  " "word" "_x_" "~" "=" "," "%%("
               "<%%(" "Local\sVariables:" "é" "🐢" "\r" "CLOCK:" "\t" "1. " "$x$" "\\"])
        (pieces nil))
    (dotimes (_ (+ 3 (funcall random 40)))
      (push (aref bits (funcall random (length bits))) pieces))
    (apply #'concat pieces)))

(ert-deftest rlm-org-random-text-is-harmless ()
  "Whatever comes, in chunks of any size, Org finds nothing to act upon."
  (random "rlm")
  (dotimes (i 400)
    (let* ((text (rlm-test-org-random #'random))
           (org (rlm-test-org text)))
      (unless (rlm-test-org-harmless-p org)
        (ert-fail (list i text org))))))

(provide 'rlm-org-test)
;;; rlm-org-test.el ends here
